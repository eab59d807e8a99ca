"""The inventory of both papers: every row says what it rests on, and a mistake in it is named."""

from __future__ import annotations

from pathlib import Path

import pytest

import verdicts
from common import papers
from common.grid import LAB
from common.papers import Untested
from keeptune.errors import ConfigError

EXPERIMENTS = sorted(grid.parent.name for grid in LAB.glob("*/grid.toml"))
HEAD = '[[paper]]\ntitle = "P"\n[[paper.figure]]\nname = "F"\nsetting = "S"\n'
CLAIM = '[[paper.figure.untested]]\nclaim = "C"\npaper = "1"\n'


def read(text: str, folder: Path) -> list[papers.Paper]:
    file = folder / "papers.toml"
    file.write_text(text, encoding="utf-8")
    return papers.papers(file)


def test_both_papers_are_there_with_settings_and_every_figure_has_a_row() -> None:
    found = papers.papers()
    assert len(found) == 2
    for figure in (figure for paper in found for figure in paper.figures):
        assert figure.name
        assert figure.setting
        assert figure.untested or any(papers.has_results(name) for name in figure.experiments), figure.name


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_tells_its_setting(name: str) -> None:
    assert 10 < len(papers.setting_of(name)) < 250


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (HEAD + CLAIM, "give `because` or `experiment`"),
        (HEAD + CLAIM + 'because = "B"\nexperiment = "pool_size"\n', "give `because` or `experiment`"),
        (HEAD + CLAIM + 'experiment = "pool_size"\n', "name it in `experiments`"),
        (HEAD + CLAIM + 'because = "B"\nseeds = 3\n', "unexpected keyword argument 'seeds'"),
        (HEAD + CLAIM.replace('paper = "1"\n', 'because = "B"\n'), "missing 1 required keyword-only argument: 'paper'"),
        (HEAD + 'experiments = ["nowhere"]\n', "there is no experiment nowhere"),
        (HEAD + 'experiments = ["pool_size", "pool_size"]\n', "pool_size stands under two figures"),
        (HEAD.replace('setting = "S"\n', ""), "missing 1 required keyword-only argument: 'setting'"),
    ],
)
def test_a_mistake_is_named(text: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        read(text, tmp_path)
    assert complaint in f"{raised.value.what} {raised.value.fix}"


def test_a_claim_waits_only_as_long_as_its_experiment_has_no_results(tmp_path: Path) -> None:
    (paper,) = read(
        HEAD
        + 'experiments = ["pool_size"]\n'
        + CLAIM
        + 'experiment = "pool_size"\n'
        + CLAIM.replace('"C"', '"D"')
        + 'because = "B"\n',
        tmp_path,
    )
    assert [claim.waits for claim in paper.figures[0].untested] == [False, True]
    assert list(verdicts.paper_rows(paper, [])) == [
        "| **P** | | | | |",
        "| **F** | *S* | | | |",
        "| D | 1 | B | – | **not testable here** |",
    ]
    assert [line["claim"] for line in verdicts.untested([paper])] == ["D"]


def test_a_claim_that_waits_links_to_its_design() -> None:
    row = verdicts.as_untested(Untested(claim="C", paper="1", experiment="ntp_or_kl"))
    assert row == "| C | 1 | designed: [ntp_or_kl](ntp_or_kl/README.md) | – | **not run yet** |"
