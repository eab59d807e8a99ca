"""Bad input: one line of what happened, one of what to do, exit code 2, no traceback, nothing lost."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast, TrainerState

from keeptune import cli
from keeptune.replay.generate import sample_pool
from keeptune.report.document import read_report
from keeptune.train.callbacks.progress import ProgressCallback
from tests.helpers.models import make_model, make_tokenizer

Run = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def keeptune(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line in this process: exit code and the lines of standard error."""

    def run(*arguments: str | Path) -> tuple[int, list[str]]:
        monkeypatch.setattr("sys.argv", ["keeptune", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        error = capsys.readouterr().err
        assert "Traceback" not in error
        return int(stopped.value.code or 0), [line for line in error.splitlines() if line]

    return run


def refused(result: tuple[int, list[str]], *words: str) -> None:
    code, lines = result
    assert code == 2, lines
    what, todo = lines[-2:]
    assert what.startswith("keeptune: ")
    assert todo.startswith("  → ")
    for word in words:
        assert word in what + todo, (word, what, todo)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "texts"
    folder.mkdir()
    for number in range(6):
        (folder / f"{number}.txt").write_text(f"Document {number} speaks of the number {number}. " * 8)
    return folder


@pytest.fixture
def tune(keeptune: Run, model_folder: Path, texts: Path, tmp_path: Path) -> Run:
    def run(*more: str | Path, model: str | Path = model_folder, data: str | Path = texts) -> tuple[int, list[str]]:
        small = {"--steps": "2", "--batch-size": "2", "--max-length": "32", "--replay-tokens": "96"}
        small |= {"--replay-length": "16", "--drift-rows": "2", "--held-out-rows": "4"}
        unsaid = [word for flag, value in small.items() if flag not in more for word in (flag, value)]
        return keeptune("tune", model, data, "--out", tmp_path / "run", *unsaid, *more)

    return run


def test_no_such_model(tune: Run, tmp_path: Path) -> None:
    refused(tune(model=tmp_path / "nowhere"), "no model at", "check the path")


def test_no_such_data(tune: Run, tmp_path: Path) -> None:
    refused(tune(data=tmp_path / "nowhere.jsonl"), "nowhere.jsonl")


def test_no_such_column(tune: Run, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"body": "text in a column of another name"}) + "\n")
    refused(tune(data=file), "body", "text")


def test_empty_data(tune: Run, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("")
    refused(tune(data=tmp_path / "rows.jsonl"), "rows.jsonl")


def test_every_row_longer_than_the_context(tune: Run, tmp_path: Path) -> None:
    rows = [{"prompt": f"{n} " + "a" * 60, "completion": "b" * 60} for n in range(4)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    refused(tune(data=tmp_path / "rows.jsonl"), "every training row", "max-length")


def save_base(folder: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    make_model().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_chat_rows_without_a_chat_template(tune: Run, tmp_path: Path) -> None:
    base = save_base(tmp_path / "plain-base", make_tokenizer(chat_template=None))
    chat = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
    rows = [{"messages": chat} for _ in range(4)]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    refused(tune(model=base, data=tmp_path / "chats.jsonl"), "chat template")


def test_tokenizer_without_pad_and_bos_trains(tune: Run, tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.pad_token = tokenizer.bos_token = None
    code, lines = tune(model=save_base(tmp_path / "bare-base", tokenizer))
    assert code == 0, lines
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


def test_pool_of_another_base(tune: Run, tmp_path: Path) -> None:
    sample_pool(make_model(seed=9), make_tokenizer(), tmp_path / "pool", tokens=96, length=16)
    refused(tune("--replay", tmp_path / "pool"), "another base model", "keeptune replay")


def test_damaged_pool(tune: Run, tmp_path: Path) -> None:
    sample_pool(make_model(), make_tokenizer(), tmp_path / "pool", tokens=96, length=16)
    shard = tmp_path / "pool" / "shard-00000.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 0x10
    shard.write_bytes(content)
    refused(tune("--replay", tmp_path / "pool"), "damaged", "again")
    shard.write_bytes(content[: len(content) // 2])
    refused(tune("--replay", tmp_path / "pool", "--overwrite"), "damaged", "again")


def test_pool_smaller_than_the_meters_share(tune: Run, tmp_path: Path) -> None:
    sample_pool(make_model(), make_tokenizer(), tmp_path / "pool", tokens=32, length=16)
    refused(tune("--replay", tmp_path / "pool"), "2 rows", "drift_rows")


def test_output_folder_holds_a_run(tune: Run, tmp_path: Path) -> None:
    assert tune()[0] == 0
    saved = (tmp_path / "run" / "model" / "model.safetensors").read_bytes()
    refused(tune(), "already contains a run", "--overwrite")
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() == saved
    refused(tune("--resume", "--lambda", "2"), "another lambda_", "resume with the settings")
    refused(tune("--overwrite", "--drift-text", "nowhere.txt"), "no data at nowhere.txt")
    refused(tune("--overwrite", "--laws", "nowhere.json"), "no laws at nowhere.json")
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() == saved
    assert tune("--overwrite", "--lambda", "2")[0] == 0


def test_a_stopped_run_whose_files_are_damaged(monkeypatch: pytest.MonkeyPatch, tune: Run, tmp_path: Path) -> None:
    def stop(self: ProgressCallback, args: object, state: TrainerState, *more: object, **named: object) -> None:
        if state.global_step == 3:
            raise KeyboardInterrupt

    run, settings = tmp_path / "run", ("--steps", "4", "--budget", "0.5", "--checkpoint-every", "1")
    with monkeypatch.context() as patched:
        patched.setattr(ProgressCallback, "on_step_end", stop)
        assert tune(*settings)[0] == 130
    state = run / "checkpoint-2" / "trainer_state.json"
    (state.parent / "complete").write_text("")  # of an earlier version, which kept no checksums
    other = json.loads(state.read_text())
    other["stateful_callbacks"]["keeptune_budget"]["momentum"] = 0.0
    for file, text, what, todo in (
        (run / "run.json", "{", "run.json is damaged: it is not JSON", "--overwrite"),
        (run / "run.json", '{"settings": 3}', "run.json is damaged: it is not what", "--overwrite"),
        (run / "runs.jsonl", "[1]\n", "runs.jsonl is damaged", "--overwrite"),
        (state, "{", "trainer_state.json is damaged", f"delete {state.parent}"),
        (state, '{"moment": 0}', "trainer_state.json is damaged", f"delete {state.parent}"),
        (state, json.dumps(other), "the budget is another version's", "start the run anew"),
    ):
        whole = file.read_text()
        file.write_text(text)
        refused(tune(*settings, "--resume"), what, todo)
        file.write_text(whole)
    assert tune(*settings, "--resume")[0] == 0


def test_output_folder_holds_something_else(tune: Run, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years of work")
    refused(tune(), "not empty", "another --out")
    refused(tune("--overwrite"), "not empty", "another --out")
    assert (tmp_path / "run" / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize(
    ("every", "what"),
    [("0", "the loss became nan at step 4"), ("1", "kl became nan at step 3")],
    ids=["loss", "reading"],
)
def test_loss_that_becomes_nan_names_step_and_checkpoint(
    monkeypatch: pytest.MonkeyPatch, tune: Run, tmp_path: Path, every: str, what: str
) -> None:
    def ruin(self: ProgressCallback, args: object, state: TrainerState, *more: object, **named: Any) -> None:
        if state.global_step == 2:  # the third step of the optimizer has just been taken
            with torch.no_grad():
                named["model"].model.norm.weight.fill_(torch.nan)

    monkeypatch.setattr(ProgressCallback, "on_optimizer_step", ruin)
    result = tune("--steps", "9", "--checkpoint-every", "1", "--lambda", "0", "--drift-every", every)
    refused(result, what, "learning rate")
    kept = tmp_path / "run" / "checkpoint-2"
    assert str(kept) in result[1][-2]
    weights = load_file(kept / "model.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--lambda", "-1"], ["lambda is -1.0"]),
        (["--held-out", "1.5"], ["held_out", "fraction"]),
        (["--batch-size", "0"], ["batch_size is 0"]),
        (["--seed", "-1"], ["seed is -1"]),
        (["--seed", "4294967296"], ["seed is 4294967296"]),
        (["--document-start", "<nosuchtoken>"], ["<nosuchtoken>"]),
    ],
)
def test_settings_that_cannot_be_meant(tune: Run, flags: list[str], words: list[str]) -> None:
    refused(tune(*flags), *words)


def test_run_file(tune: Run, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    refused(tune("--config", file), "no run file")
    file.write_text("steps = ")
    refused(tune("--config", file), "cannot be read")
    file.write_text("[sft]\nlearning_rte = 1.0\n")
    refused(tune("--config", file), "learning_rte")
    file.write_text("[sft]\nlr_scheduler_type = 'nosuch'\n")
    refused(tune("--config", file), "TRL refuses")
    file.write_text("lambda = 0.5\nseed = 3\n[sft]\nweight_decay = 0.25\n")
    code, lines = tune("--config", file, "--seed", "4")
    assert code == 0, lines
    settings = json.loads((tmp_path / "run" / "run.json").read_text())["settings"]
    assert (settings["lambda_"], settings["seed"], settings["sft"]) == (0.5, 4, {"weight_decay": 0.25})


def test_fsdp_in_one_process(tune: Run, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text("[sft]\nfsdp = true\n")
    refused(tune("--config", file), "this is one", "accelerate launch --config_file recipes/fsdp2.yaml")


def test_unknown_flag_is_named(keeptune: Run) -> None:
    code, lines = keeptune("tune", "a", "b", "--out", "c", "--lamda", "3")
    assert code == 2
    assert any("--lamda" in line and "--lambda" in line for line in lines)


def test_models_of_different_vocabularies(keeptune: Run, model_folder: Path, tmp_path: Path) -> None:
    make_model(vocab=300).save_pretrained(tmp_path / "wide")
    make_tokenizer().save_pretrained(tmp_path / "wide")
    refused(keeptune("audit", model_folder, tmp_path / "wide"), "different vocabularies", "259 and 300")


def test_other_vocabularies_are_compared_on_what_they_share_only_if_asked(
    keeptune: Run, model_folder: Path, tmp_path: Path
) -> None:
    wide, mine = tmp_path / "wide", tmp_path / "mine"
    make_model(vocab=262).save_pretrained(wide)
    more = make_tokenizer()
    more.add_special_tokens({"additional_special_tokens": ["<tool>", "<call>", "<end>"]})
    more.save_pretrained(wide)
    mine.mkdir()
    for number in range(3):
        (mine / f"{number}.txt").write_text(f"Text {number} without tools. " * 3)
    small = ["--text", f"mine={mine}", "--docs", "3", "--max-length", "32", "--out", tmp_path / "audit"]
    refused(keeptune("audit", model_folder, wide, *small), "259: None and '<tool>'", "--shared-vocabulary")
    code, said = keeptune("audit", model_folder, wide, *small, "--shared-vocabulary")
    assert code == 0, said
    report = read_report(tmp_path / "audit" / "report.json")
    assert "259 and 262 outputs" in str(report.vocabulary)
    (kl,) = report.select(subject="mine", measure="kl")
    assert kl.value > 0
    assert kl.words == "not enough evidence"


def test_audits_of_nothing(keeptune: Run, model_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    empty = f"mine={tmp_path / 'empty.txt'}"
    refused(
        keeptune("audit", model_folder, model_folder, "--text", empty, "--docs", "2"),
        "no document has a token to predict",
    )
    refused(keeptune("audit", model_folder), "no tuned model")
    refused(keeptune("audit", model_folder, model_folder, model_folder), "--stages", "keeptune compare")
    refused(keeptune("audit", model_folder, model_folder, "--recovery", "wiki"), "no text of this audit", "self-chat")
    refused(keeptune("audit", model_folder, model_folder, "--lm-eval", "nosuch"), "no task nosuch")
    refused(keeptune("audit", model_folder, model_folder, "--harmful", "bad=nosuch.csv"), "nosuch.csv")
    refused(keeptune("audit", model_folder, tmp_path / "gone"), "gone")


def test_text_named_badly(keeptune: Run, model_folder: Path) -> None:
    refused(keeptune("audit", model_folder, model_folder, "--text", "a b=c.txt"), "NAME=SOURCE")
    refused(keeptune("audit", model_folder, model_folder, "--text", "x=pydoc", "--text", "x=self"), "twice for x")
    task = ["--task", "self=a.jsonl"]
    refused(keeptune("audit", model_folder, model_folder, *task), "a text and a task are called self")


@pytest.mark.parametrize(
    ("bound", "words"),
    [
        ("perplexity=3", ["perplexity=3", "agreement, ce_change, kl, l_f_rise"]),
        ("kl", ["names no measure"]),
        ("wiki:kl=0.02", ["nothing is called 'wiki'", "self, self-chat, mine"]),
        ("kl=much", ["'much' is no number"]),
        ("kl=nan", ["'nan' is no number"]),
        ("kl=-0.1", ["kl below 0"]),
        ("agreement=0.97", ["how far it falls", "agreement=-0.03"]),
    ],
)
def test_bounds_that_cannot_be_meant(keeptune: Run, model_folder: Path, bound: str, words: list[str]) -> None:
    texts = ["--text", "mine=pydoc", "--text", "self"]
    refused(keeptune("audit", model_folder, model_folder, *texts, "--fail-above", bound), *words)


def test_junit_without_a_bound(keeptune: Run, model_folder: Path, tmp_path: Path) -> None:
    refused(keeptune("audit", model_folder, model_folder, "--junit", tmp_path / "a.xml"), "--fail-above")


def test_a_model_whose_predictions_are_no_numbers_passes_no_gate(
    keeptune: Run, model_folder: Path, texts: Path, tmp_path: Path
) -> None:
    broken = make_model()
    with torch.no_grad():
        broken.model.norm.weight.fill_(torch.nan)
    broken.save_pretrained(tmp_path / "broken")
    make_tokenizer().save_pretrained(tmp_path / "broken")
    gate = ["--text", f"mine={texts}", "--out", tmp_path / "audit", "--fail-above", "kl=9"]
    refused(keeptune("audit", model_folder, tmp_path / "broken", *gate), "no numbers", "NaN")
    assert not (tmp_path / "audit" / "report.json").exists()


def test_debug_shows_the_traceback_and_keeps_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.argv", ["keeptune", "audit", str(tmp_path / "no"), str(tmp_path / "no"), "--debug"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_crash_is_no_broken_bound(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def crash(*arguments: object, **settings: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr("keeptune.audit.run.audit", crash)
    monkeypatch.setattr("sys.argv", ["keeptune", "audit", "base", "tuned"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 70
    assert "RuntimeError: a defect" in capsys.readouterr().err


def test_precision_is_recorded(tune: Run, tmp_path: Path) -> None:
    assert tune()[0] == 0
    row = json.loads((tmp_path / "run" / "runs.jsonl").read_text().splitlines()[-1])
    assert row["versions"]["torch"] == torch.__version__.split("+")[0] or row["versions"]["torch"] == torch.__version__


def test_what_a_run_is_told_to_read_is_looked_at_before_the_pool_is_written(tune: Run, tmp_path: Path) -> None:
    refused(tune("--drift-text", "nowhere.txt"), "nowhere.txt")
    refused(tune("--overwrite", "--laws", "nowhere.json"), "nowhere.json")
    assert not list(tmp_path.glob("**/manifest.json"))


def test_a_pool_that_the_meter_takes_whole_is_refused(tune: Run, tmp_path: Path) -> None:
    small = tmp_path / "pool"
    sample_pool(make_model(), make_tokenizer(), small, tokens=2 * 16, length=16)
    refused(tune("--replay", small), "2 rows")


def test_a_reading_that_is_no_number_ends_the_run_as_diverged(tune: Run, tmp_path: Path) -> None:
    code, lines = tune("--learning-rate", "3e38", "--steps", "8")
    assert code == 2
    assert re.search(r"keeptune: \w+ became (nan|inf) at step [1-8]", lines[-2]), lines[-2]
    readings = [json.loads(line) for path in tmp_path.glob("**/runs.jsonl") for line in path.read_text().splitlines()]
    assert [row["step"] for row in readings] == [0]


@pytest.fixture
def verbs(tmp_path: Path, model_folder: Path, texts: Path) -> dict[str, list[str | Path]]:
    """Verbs that write to --out, on small input."""
    table = tmp_path / "runs.csv"
    table.write_text("P,N,L_ft,L_f\n" + "\n".join(f"1e6,{N},{2 - N / 99},{1 + N / 99}" for N in range(10, 60, 10)))
    small: list[str | Path] = ["--max-length", "32", "--batch-size", "2"]
    pool: list[str | Path] = ["--replay-tokens", "96", "--replay-length", "16", "--drift-rows", "2"]
    return {
        "replay": ["replay", model_folder, "--tokens", "64", "--length", "16"],
        "tune": ["tune", model_folder, texts, "--steps", "1", *small, *pool],
        "audit": ["audit", model_folder, model_folder, "--text", f"mine={texts}", "--docs", "3", *small[:2]],
        "plan": ["plan", model_folder, texts, "--budget", "0.5", "--max-rank", "16", *small],
        "laws fit": ["laws", "fit", table, "--bootstraps", "0"],
    }


@pytest.mark.parametrize("verb", ["replay", "tune", "audit", "plan", "laws fit"])
def test_an_output_path_that_cannot_be(
    keeptune: Run, verbs: dict[str, list[str | Path]], tmp_path: Path, verb: str
) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    refused(keeptune(*verbs[verb], "--out", file / "deep" / "out"), "below", "choose another path")
    refused(keeptune(*verbs[verb], "--out", file / "out"), str(file), "choose another path")
    refused(keeptune(*verbs[verb], "--out", tmp_path / ("long" * 80)), "the name is too long", "shorter")
    assert file.read_text() == "mine"


def test_an_output_path_that_cannot_be_in_a_process_of_its_own(
    verbs: dict[str, list[str | Path]], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    command = [sys.executable, "-m", "keeptune", *map(str, verbs["laws fit"]), "--out", str(tmp_path / "file" / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    refused((done.returncode, done.stderr.splitlines()), "below", "choose another path")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
@pytest.mark.parametrize("verb", ["replay", "tune", "audit", "plan", "laws fit"])
def test_an_output_folder_that_others_own(
    keeptune: Run, verbs: dict[str, list[str | Path]], tmp_path: Path, verb: str
) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    refused(keeptune(*verbs[verb], "--out", locked / "out"), "no permission for", "may")
