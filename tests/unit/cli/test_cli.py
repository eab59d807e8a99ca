"""The command line: instant help, a held list of flags, python -m keeptune, and each verb on a tiny model."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import keeptune
from keeptune.report.document import read_report
from tests.helpers.cli import run
from tests.helpers.models import make_model, make_tokenizer

COMMON = {"--help"}
FLAGS = {
    "demo": {"--out", "--model", "--data", "--text", "--steps", "--lambda", "--documents", "--seed", "--quick",
             "--skip-bad-rows", "--no-skip-bad-rows"},
    "plan": {"--model", "--data", "--budget", "--out", "--minutes", "--hours", "--max-rank", "--learning-rate",
             "--batch-size", "--max-length", "--seed", "--skip-bad-rows", "--ray"},
    "replay": {"--model", "--out", "--tokens", "--length", "--seed", "--document-start", "--opening", "--show",
               "--predictions", "--top-k", "--prompts", "--chat-template", "--text", "--temperature",
               "--engine", "--vllm-python", "--tensor-parallel", "--skip-bad-rows", "--no-skip-bad-rows",
               "--rows-per-shard", "--shard", "--no-shard", "--ray", "--estimate", "--tflops",
               "--load-in-4bit", "--load-in-8bit", "--no-load-in-4bit", "--no-load-in-8bit"},
    "audit": {"--base", "--text", "--task", "--items", "--docs", "--max-length", "--windows", "--seed", "--out",
              "--shared-vocabulary", "--lm-eval", "--harmful", "--harmless", "--prompts", "--new-tokens", "--judge",
              "--suite", "--suite-items", "--stages", "--recovery", "--skip-bad-rows",
              "--fail-above", "--junit", "--markdown", "--only", "--skip", "--strict", "--plan",
              "--quick", "--report-to"},
    "compare": {"--learned", "--forgot", "--out"},
    "repair": {"--base", "--tuned", "--budget", "--out", "--method", "--task-text", "--skip-bad-rows", "--most-lost",
               "--prompts", "--document-start", "--rows", "--length", "--max-length", "--tuning-steps", "--tuning-rank",
               "--learning-rate", "--batch-size", "--seed"},
    "laws fit": {"--out", "--after", "--bootstraps", "--seed"},
    "laws predict": {"--laws", "--P", "--N", "--L-ft", "--lambda", "--replay-tokens", "--interval"},
    "laws plot": {"--out", "--style", "--after"},
    "tune": {
        "--model", "--data", "--out", "--lambda", "--budget", "--objective", "--replay", "--replay-tokens",
        "--replay-length", "--replay-rows", "--teacher", "--top-k", "--document-start", "--opening", "--drift-every",
        "--drift-rows", "--drift-text", "--skip-bad-rows", "--no-skip-bad-rows", "--lora", "--steps", "--learning-rate",
        "--batch-size", "--accumulate", "--max-length", "--held-out", "--held-out-rows", "--seed",
        "--chat-template", "--append-eos", "--no-append-eos",
        "--checkpoint-every", "--load-in-4bit", "--load-in-8bit", "--no-load-in-4bit", "--no-load-in-8bit",
        "--save-dtype", "--shard", "--no-shard", "--base-model", "--license", "--push-to-hub",
        "--laws", "--stop-if-forecast", "--config", "--resume", "--overwrite", "--estimate", "--tflops",
    },
}  # fmt: skip


@pytest.mark.parametrize("verb", sorted(FLAGS))
def test_adding_a_flag_is_a_decision(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert run(monkeypatch, *verb.split(), "--help") == 0
    parameters = capsys.readouterr().out.split("Parameters", 1)[1]
    flags = set(re.findall(r"(--[A-Za-z][a-z0-9-]*)", re.sub(r"(?m)^(│.{0,45}).*$", r"\1", parameters)))
    assert flags - COMMON == FLAGS[verb]


@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells the load")
def test_beside_other_work_waiting_threads_sleep() -> None:
    """OpenMP reads its policy when torch is loaded; what the user has set stays."""
    code = (
        "import os; from keeptune.cli import _prepare_process as set_up; set_up(); print(os.environ['OMP_WAIT_POLICY'])"
    )
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        for given, expected in ({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE"):
            found = subprocess.run(
                [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=os.environ | given
            )
            assert found.stdout.strip() == expected
    finally:
        for other in others:
            other.kill()
            other.wait()


def test_runs_as_a_module_and_tells_its_version() -> None:
    done = subprocess.run([sys.executable, "-m", "keeptune", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == keeptune.__version__


def test_replay_tune_and_audit_work_together(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model_folder: Path, tmp_path: Path
) -> None:
    for number in range(6):
        (tmp_path / f"{number}.txt").write_text(f"Text {number} is about the number {number}. " * 9)
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9")
    pool, out = tmp_path / "pool", tmp_path / "run"
    assert run(monkeypatch, "replay", model_folder, "--out", pool, "--tokens", 400, "--length", 16, "--show", 2) == 0
    assert capsys.readouterr().out.count("── sample") == 2
    small = ["--steps", 6, "--batch-size", 2, "--max-length", 32, "--drift-rows", 4, "--drift-every", 3, "--lora", 4]
    data = tmp_path / "*.txt"
    assert run(monkeypatch, "tune", model_folder, data, "--out", out, "--replay", pool, *small) == 2
    assert "latin.txt is not UTF-8 text (byte 3" in " ".join(capsys.readouterr().err.split())
    small.append("--skip-bad-rows")
    assert run(monkeypatch, "tune", model_folder, data, "--out", out, "--replay", pool, *small) == 0
    assert (out / "model" / "adapter_model.safetensors").is_file()
    card = (out / "model" / "README.md").read_text()
    first, *_, last = map(json.loads, (out / "runs.jsonl").read_text().splitlines())
    assert abs(first["KL"]) < 1e-7, "training multiplies as the pool was written"
    assert f"{last['KL']:.4f}" in card
    assert "rsLoRA, rank 4" in card
    assert "could not be read and were left out: 1." in card
    texts = ["--text", "self", "--text", f"mine={data}", "--docs", 5, "--max-length", 48, "--skip-bad-rows"]
    assert run(monkeypatch, "audit", model_folder, out / "model", *texts, "--out", tmp_path / "audit") == 0
    report, table = read_report(tmp_path / "audit" / "report.json"), capsys.readouterr().out
    kls = report.select("drift", measure="kl")
    assert [kl.subject for kl in kls] == ["self", "self-chat", "mine"]
    for kl in kls:
        assert kl.n == 5
        assert kl.value > 0
        assert 0 <= (kl.low or 0) <= kl.value <= (kl.high or 0)
        soft, entropy = (report.select(subject=kl.subject, measure=name)[0] for name in ("soft_ce", "entropy"))
        assert soft.value > entropy.value
        assert f"{kl.value:.4f}" in table


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    for number in range(12):
        (tmp_path / f"{number}.txt").write_text(f"Text {number} is about the number {number}. " * 9)
    return tmp_path / "*.txt"


def test_a_base_has_not_drifted_from_itself(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model_folder: Path, texts: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    out = tmp_path / "audit"
    small = ["--text", f"mine={texts}", "--text", "self", "--docs", 12, "--max-length", 48, "--out", out]
    bounds = ["--fail-above", "kl=0", "--fail-above", "ce_change=0", "--fail-above", "mine:agreement=0"]
    assert run(monkeypatch, "audit", model_folder, model_folder, *small, *bounds) == 0
    report = read_report(out / "report.json")
    judged = [finding for finding in report.findings if finding.verdict]
    assert {finding.subject for finding in judged} == {"self", "self-chat", "mine"}
    for finding in judged:
        assert finding.change == (0.0, 0.0, 0.0)
        assert (finding.n, finding.words, finding.p_together) == (12, "not distinguishable from zero", 1.0)
    drift = report.section("drift")
    assert drift is not None
    assert any("the base against itself" in line for line in drift.methods)
    assert [outcome.status.value for outcome in report.gate] == ["held"] * 7
    assert " ".join(capsys.readouterr().out.split()).count("not distinguishable") == 12


def test_sections_are_chosen_planned_and_strict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model_folder: Path, texts: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    out = tmp_path / "audit"
    small = ["--text", f"mine={texts}", "--docs", 4, "--max-length", 48, "--out", out]
    audit = ["audit", model_folder, model_folder, *small]
    assert run(monkeypatch, *audit, "--skip", "where", "--plan") == 0
    planned = capsys.readouterr().out
    assert "left out by --only or --skip" in planned
    assert "no --task is given" in planned
    assert not (out / "report.json").exists()
    assert run(monkeypatch, *audit, "--only", "drift") == 0
    report = read_report(out / "report.json")
    assert {record.name: record.status.value for record in report.sections} == {
        "drift": "not enough evidence",
        **dict.fromkeys(("tasks", "lm_eval", "abilities", "refusals", "where", "recovery"), "not run"),
    }
    assert not list((out / "steps").glob("layers*"))
    assert run(monkeypatch, *audit, "--only", "drift", "--strict") == 1
    assert "drift: not enough evidence" in capsys.readouterr().err
    for bad, said in (
        (["--only", "drifts"], "no such section"),
        (["--skip", "drift", "--fail-above", "kl=1"], "names no measure that is taken"),
        (["--only", "tasks"], "there is nothing to measure"),
    ):
        assert run(monkeypatch, *audit, *bad) == 2
        assert said in " ".join(capsys.readouterr().err.split())


def test_the_gate_fails_only_a_model_that_surely_drifted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model_folder: Path, texts: Path, tmp_path: Path
) -> None:
    tuned, xml, summary = tmp_path / "tuned", tmp_path / "gate.xml", tmp_path / "gate.md"
    make_model(seed=1).save_pretrained(tuned)
    make_tokenizer().save_pretrained(tuned)

    def gate(bound: str, docs: int = 12) -> int:
        small = ["--text", f"mine={texts}", "--docs", docs, "--max-length", 48, "--out", tmp_path / "audit"]
        files = ["--junit", xml, "--markdown", summary]
        return run(monkeypatch, "audit", model_folder, tuned, *small, *files, "--fail-above", bound)

    assert gate("mine:kl=0.1") == 1
    said = capsys.readouterr()
    assert "excludes the bound" in said.err
    assert said.out.count("drifted") >= 2
    assert 'failures="1"' in xml.read_text()
    assert "❌ broken" in summary.read_text()
    (kl,) = read_report(tmp_path / "audit" / "report.json").select(subject="mine", measure="kl")
    assert gate(f"kl={((kl.low or 0) + kl.value) / 2}") == 0
    assert "beyond the bound, not surely" in capsys.readouterr().err
    assert gate("agreement=-1") == 0
    assert "bound" not in capsys.readouterr().err
    assert gate("kl=0.1", docs=9) == 0
    assert "not enough evidence" in capsys.readouterr().err
    assert 'skipped="3"' in xml.read_text()


def test_runs_that_differ_in_replay_give_the_replay_law(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    table, laws = tmp_path / "runs.csv", tmp_path / "laws.json"
    rows = [
        f"{run},1e6,{N},{weight},{tokens},{1 + N**-0.3 + weight / 50},{1 + (1 - N**-0.3) / (1 + weight)},0.9"
        for run, (weight, tokens) in enumerate([(0, 0), (0.5, 4000), (2, 4000), (8, 4000)])
        for N in range(10, 100, 10)
    ]
    table.write_text("\n".join(["run,P,N,lambda,replay_tokens,L_ft,L_f,L_f_base", *rows]))
    assert run(monkeypatch, "laws", "fit", table, "--out", laws, "--bootstraps", 3) == 2
    assert "20 or more" in capsys.readouterr().err
    assert run(monkeypatch, "laws", "fit", table, "--out", laws, "--bootstraps", 0) == 0
    said = capsys.readouterr().out
    assert "Replay law: R²" in said
    assert "all pools have one size" in said
    place = ["laws", "predict", laws, "--P", 1e6, "--N", 50]
    forgotten = []
    for weight in (0, 4):
        assert run(monkeypatch, *place, "--lambda", weight, "--replay-tokens", 4000) == 0
        forgotten.append(float(capsys.readouterr().out.split("L_f ")[1].split()[0]))
    assert forgotten[1] < forgotten[0] - 0.3
    other_rank = [*place[:4], 2e6, "--N", 5, "--lambda", 1]
    for bad in (place, [*place, "--replay-tokens", 5], [*place, "--lambda", -1], other_rank):
        assert run(monkeypatch, *bad) == 2
        assert "→" in capsys.readouterr().err
    assert run(monkeypatch, "laws", "plot", table, "--out", tmp_path / "laws.svg") == 2
    assert run(monkeypatch, "laws", "plot", table, "--out", tmp_path / "ends.svg", "--style", "frontier") == 0
    assert "<svg" in (tmp_path / "ends.svg").read_text()
    capsys.readouterr()
    assert run(monkeypatch, "laws", "plot", laws, "--out", tmp_path / "laws.svg") == 2
    assert "give the readings themselves" in capsys.readouterr().err


def test_laws_are_fitted_drawn_and_predict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    files = []
    for P in (1e6, 4e6, 16e6):
        file = tmp_path / f"{P:.0f}.csv"
        rows = [f"{P},{N},{1 + 8 * P**-0.1 * N**-0.3},{2 - 8 * P**-0.1 * N**-0.3}" for N in range(10, 200, 10)]
        file.write_text("\n".join(["P,N,L_ft,L_f", *rows]))
        files.append(file)
    laws, page = tmp_path / "laws.json", tmp_path / "laws.html"
    assert run(monkeypatch, "laws", "fit", *files, "--out", laws, "--bootstraps", 20) == 0
    assert "57 readings of 3 runs with 3 different P" in capsys.readouterr().out
    assert run(monkeypatch, "laws", "predict", laws, "--P", 8e6, "--N", 100) == 0
    said, warned = capsys.readouterr()
    assert "Extrapolated" not in warned
    assert float(said.split()[1]) == pytest.approx(1 + 8 * 8e6**-0.1 * 100**-0.3, abs=0.001)
    assert "a new reading [" in said
    assert run(monkeypatch, "laws", "predict", laws, "--P", 16, "--N", 100) == 0
    assert "Extrapolated: the runs have P from 1,000,000 to 16,000,000" in capsys.readouterr().err
    assert run(monkeypatch, "laws", "predict", laws, "--L-ft", 1.5) == 0
    assert capsys.readouterr().out.startswith("L_f   1.5000 nats per token")
    assert run(monkeypatch, "laws", "plot", *files, "--out", page) == 0
    assert "joint law" in page.read_text()
    picture = tmp_path / "laws.svg"
    assert run(monkeypatch, "laws", "plot", *files, "--out", picture, "--style", "frontier") == 0
    assert "<svg" in picture.read_text()
    assert run(monkeypatch, "laws", "plot", *files, "--out", tmp_path / "laws.pdf") == 2
    assert run(monkeypatch, "laws", "plot", *files, "--out", page, "--style", "frontier") == 2
    published = ["laws", "predict", "llama2-7b-chat/news", "--P", 8 * 2_498_560, "--N", 50]
    assert run(monkeypatch, *published) == 0
    assert "L_f   0.845" in capsys.readouterr().out
    for bad in ((laws, "--P", 1e6), (laws,), (laws, "--P", 1, "--N", 1, "--L-ft", 1), ("nosuch.json", "--L-ft", 1)):
        assert run(monkeypatch, "laws", "predict", *bad) == 2
        assert "→" in capsys.readouterr().err
    assert run(monkeypatch, "laws", "fit", files[0], "--out", laws) == 0
    said, hint = capsys.readouterr()
    assert "Only the line is fitted" in said
    assert "--L-ft …" in hint
    assert run(monkeypatch, "laws", "fit", "--out", laws) == 2
