"""What an audit would take, and the quick audit: small, the same each time, and said on its page."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, get_peft_model

from keeptune.audit.gate import parse_bounds
from keeptune.audit.planned import plan, probe, weight_bytes, working_bytes
from keeptune.audit.run import audit
from keeptune.audit.section import Cost
from keeptune.audit.settings import QUICK, AuditSettings
from keeptune.errors import ConfigError
from keeptune.models.loading import load_model, load_tuned
from keeptune.models.quantized import has_packed_head
from keeptune.report.document import Status, read_report
from tests.helpers.models import make_model, make_tokenizer, pack_head


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, another model of its shape, and an adapter on the base."""
    folder = tmp_path_factory.mktemp("models")
    for seed in range(2):
        make_model(seed=seed).save_pretrained(folder / f"m{seed}")
        make_tokenizer().save_pretrained(folder / f"m{seed}")
    adapter = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    get_peft_model(load_model(str(folder / "m0")), adapter).save_pretrained(folder / "adapter")
    (folder / "facts.jsonl").write_text(
        "".join(json.dumps({"question": f"{n}?", "choices": ["a", "b"], "answer": n % 2}) + "\n" for n in range(40))
    )
    return folder


def settings(models: Path, out: Path, tuned: str = "m1", **given: Any) -> AuditSettings:
    return AuditSettings(base=str(models / "m0"), tuned=(str(models / tuned),), out=str(out), **given)


def test_a_plan_says_items_time_and_memory_and_writes_nothing(models: Path, tmp_path: Path) -> None:
    task = [f"facts={models / 'facts.jsonl'}"]
    small = plan(settings(models, tmp_path / "out", docs=4, max_length=64, task=task))
    assert not (tmp_path / "out").exists()
    rows = {row[0].shown: [cell.shown for cell in row[2:]] for row in small.table().rows}
    assert rows["tasks"][0] == "40"
    assert rows["lm_eval"] == ["0", "0", "0", "0.0", "0", "no --lm-eval is given"]
    # Two texts of four rows, and again four of each for the noise floor; the base samples both texts.
    assert rows["drift"][:3] == ["8", "1,024", "504"]
    assert small.speed.layers == 2
    assert small.seconds > small.load_seconds > 0
    assert small.peak > small.process + small.weights
    assert [line.split(":")[0] for line in small.lines()[1:]] == ["Time", "Memory"]
    more = {name: small.speed.seconds_of(Cost(**{name: 1000})) for name in ("read", "written", "sampled", "trained")}
    assert all(seconds > 0 for seconds in more.values())
    # Where the section of texts is left out, who needs the texts has to read them.
    alone = plan(settings(models, tmp_path / "out", docs=4, max_length=64, only=["where"]))
    assert alone.costs["where"].read > small.costs["drift"].read


def test_an_adapter_on_its_base_has_the_weights_of_one_model(models: Path) -> None:
    base = load_model(str(models / "m0"))
    one, two = weight_bytes(base), weight_bytes(base, load_model(str(models / "m1")))
    added = weight_bytes(base, load_tuned(str(models / "adapter"), base)) - one
    assert two == 2 * one
    assert 0 < added < one / 2


@pytest.mark.parametrize("quantised", ["neither", "base", "both"])
def test_a_quantized_output_layer_can_be_planned_with(quantised: str) -> None:
    base, tuned = make_model(tie=False), make_model(seed=1, tie=False)
    for model in {"neither": (), "base": (base,), "both": (base, tuned)}[quantised]:
        pack_head(model)
    assert has_packed_head(base) == (quantised != "neither")
    speed = probe(base, tuned)
    assert min(speed.read, speed.written, speed.sampled) > 0
    everything = Cost(read=1, written=1, sampled=1, read_a_layer=1, trained=1)
    assert working_bytes(base, 0, everything, 64) > working_bytes(base, 0, Cost(read=1), 64) > 0


def rows_written(cache: Path) -> dict[Path, int]:
    """When each file of sampled rows was written."""
    return {file: file.stat().st_mtime_ns for file in cache.rglob("*.safetensors")}


def test_a_quick_audit_is_small_sampled_once_and_says_so(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEEPTUNE_CACHE", str(tmp_path / "cache"))
    quick = settings(models, tmp_path / "one", quick=True, max_length=32, suite_items=3)
    assert {name: getattr(quick, name) for name in QUICK} == {**QUICK, "max_length": 32, "suite_items": 3}
    first = audit(quick)
    record = first.section("where")
    assert record is not None
    assert (record.status, record.reason) == (Status.NOT_RUN, "left out by --quick")
    assert "A quick audit" in (tmp_path / "one" / "report.html").read_text(encoding="utf-8")
    assert all(finding.verdict is not None for finding in first.select("drift", measure="kl"))
    assert {finding.n for finding in first.select("drift", measure="kl")} == {16}
    written = rows_written(tmp_path / "cache")
    second = audit(settings(models, tmp_path / "two", tuned="adapter", quick=True, max_length=32, suite_items=3))
    digests = [[subject.digest for record in of.sections for subject in record.subjects] for of in (first, second)]
    assert digests[0] == digests[1]
    assert written
    assert rows_written(tmp_path / "cache") == written
    asked = settings(models, tmp_path / "one", quick=True, only=["where"]).chosen()
    assert [section.name for section in asked] == ["where"]


def test_a_tracker_that_fails_loses_no_report(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "trackio.py").write_text("def init(**given): raise OSError('no route to host')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "trackio", sys)
    del sys.modules["trackio"]
    out = tmp_path / "out"
    given = settings(models, out, docs=2, max_length=32, only=["drift"], report_to=["trackio"])
    report = audit(given, parse_bounds(["kl=100"], given.named(given.chosen())))
    assert read_report(out / "report.json") == report
    assert all(one.bound for one in report.gate)
    assert "--report-to trackio: the numbers were not sent: no route to host" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "what"), [("mlflow", "there is no such tracker"), ("wandb", "the package wandb is not installed")]
)
def test_a_tracker_that_is_not_there_is_refused_by_name(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, what: str
) -> None:
    monkeypatch.setattr("keeptune.report.trackers.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=f"--report-to {name}: {what}"):
        settings(models, tmp_path, report_to=[name])
