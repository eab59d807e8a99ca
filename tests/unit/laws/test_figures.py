"""The data of the figures: readings by run, the law through them, the ends of runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from keeptune.errors import ConfigError
from keeptune.laws.figures import drawing, frontier_figure, laws_figure, replay_frontier_figure, run_ends
from keeptune.plot_style import COLOURS, check_suffix, save
from tests.helpers.laws import readings
from tests.helpers.replay_laws import POOLS, WEIGHTS
from tests.helpers.replay_laws import readings as replay_readings


def test_a_figure_has_each_runs_readings_in_order_and_the_law_through_them() -> None:
    runs = readings(noise=0)
    data = drawing(runs)
    assert [of["P"] for of in data["by_P"]] == runs.sizes
    first = data["by_P"][0]
    assert first["N"] == [*range(50, 261, 10)] * 3
    assert first["fit"]["N"][0] == pytest.approx(50)
    assert first["fit"]["L_f"][-1] == pytest.approx(first["L_f"][-1], rel=1e-6)


def test_the_ends_are_the_last_readings_of_the_runs_in_any_order() -> None:
    runs = replay_readings()
    ends = run_ends(runs)
    columns = ("P", "N", "L_ft", "L_f", "run", "lambda_", "tokens")
    backwards = dataclasses.replace(runs, **{name: getattr(runs, name)[::-1] for name in columns})
    assert run_ends(backwards) == ends
    assert len(ends["runs"]) == runs.count
    first = ends["runs"][0]
    at_end = (runs.N.max() == runs.N) & (runs.lambda_ == first["lambda"]) & (runs.tokens == first["tokens"])
    assert (first["L_ft"], first["L_f"]) == (runs.L_ft[at_end][0], runs.L_f[at_end][0])
    assert ends["L_f_base"] == runs.L_f_base


def test_the_laws_are_drawn_with_readings_line_and_curves_by_rank() -> None:
    drawn = drawing(readings(noise=0.004, seeds=1))
    cost, learned, forgotten = laws_figure(drawn).axes
    points, line = cost.lines[:-1], cost.lines[-1]
    assert [list(of.get_xdata()) for of in points] == [of["L_ft"] for of in drawn["by_P"]]
    assert line.get_ydata()[0] == pytest.approx(drawn["line"]["s"] - drawn["line"]["c"] * drawn["line"]["L_ft"][0])
    for panel, loss in ((learned, "L_ft"), (forgotten, "L_f")):
        dotted, solid = panel.lines[::2], panel.lines[1::2]
        assert [of.get_linestyle() for of in dotted] == [":"] * 6
        assert [list(of.get_ydata()) for of in dotted] == [of[loss] for of in drawn["by_P"]]
        assert [list(of.get_ydata()) for of in solid] == [of["fit"][loss] for of in drawn["by_P"]]
        assert [of.get_color() for of in solid] == list(COLOURS)
        assert "nats per token" in panel.get_ylabel()
    assert f"{drawn['joint'][1]:.3f}" in forgotten.get_title(loc="left")


def test_without_a_joint_law_only_readings_are_drawn_and_it_is_said() -> None:
    _, learned, _ = laws_figure(drawing(readings(ranks=(8, 64)))).axes
    # Three runs of each of two ranks, not joined to each other.
    assert [len(line.get_xdata()) for line in learned.lines] == [22] * 6
    assert "no joint law" in learned.get_title(loc="left")


def test_the_frontier_walks_along_each_run_with_an_arrow_in_time() -> None:
    drawn = drawing(readings(noise=0, seeds=2))
    (panel,) = frontier_figure(drawn).axes
    assert len(panel.lines) == len(panel.texts) == 12
    first = drawn["by_P"][0]
    assert list(panel.lines[0].get_xdata()) == first["L_ft"][:22]
    assert panel.texts[0].xy == (first["L_ft"][21], first["L_f"][21])
    assert panel.xaxis_inverted()
    labels = [line.get_label() for line in panel.lines]
    assert [label for label in labels if not label.startswith("_")] == [
        "20 M", "40 M", "80 M", "160 M", "320 M", "640 M"
    ]  # fmt: skip


def test_the_frontier_of_lambda_has_a_point_where_each_run_ends() -> None:
    runs = replay_readings()
    ends = run_ends(runs)
    assert len(ends["runs"]) == runs.count == 16
    at_end = runs.where(np.equal(runs.N, runs.N.max()))
    assert sorted(of["L_ft"] for of in ends["runs"]) == sorted(at_end.L_ft.tolist())
    (panel,) = replay_frontier_figure(ends).axes
    joined, points = panel.lines[: len(POOLS)], panel.lines[len(POOLS) : -1]
    assert [line.get_label() for line in points] == ["0", "0.1", "0.3", "1", "3", "10"]
    for weight, line in zip((0.0, *WEIGHTS), points, strict=True):
        own = at_end.where(np.equal(at_end.lambda_, weight))
        assert sorted(zip(line.get_xdata(), line.get_ydata(), strict=True)) == sorted(
            zip(own.L_ft.tolist(), own.L_f.tolist(), strict=True)
        )
    for tokens, line in zip(POOLS, joined, strict=True):
        own = at_end.where(np.isin(at_end.tokens, (0.0, tokens)))
        assert list(line.get_ydata()) == own.L_f[np.argsort(own.lambda_)].tolist()
    assert list(panel.lines[-1].get_ydata()) == [runs.L_f_base] * 2
    assert [text.get_text() for text in panel.texts] == ["1 k tokens", "8 k tokens", "64 k tokens", "the base"]
    assert panel.xaxis_inverted()


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_the_same_runs_give_the_same_bytes_and_the_process_keeps_its_look(tmp_path: Path, suffix: str) -> None:
    before = mpl.rcParams["font.size"]
    written = []
    for name in ("one", "two"):
        save(laws_figure(drawing(readings(seeds=1))), tmp_path / f"{name}{suffix}")
        written.append((tmp_path / f"{name}{suffix}").read_bytes())
    assert written[0] == written[1]
    assert len(written[0]) > 10_000
    assert b"<dc:date>" not in written[0]
    assert mpl.rcParams["font.size"] == before


def test_names_that_are_no_picture(tmp_path: Path) -> None:
    for name in ("laws", "laws.pdf", "laws.html"):
        with pytest.raises(ConfigError, match=f"cannot write a figure as {name}"):
            save(laws_figure(drawing(readings(seeds=1))), tmp_path / name)
    check_suffix(Path("laws.html"), (".html",))
    with pytest.raises(ConfigError) as caught:
        check_suffix(Path("laws.gif"), (".html",))
    assert ".html, .svg, .png" in caught.value.fix
