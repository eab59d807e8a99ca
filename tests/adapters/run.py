"""Every adapter type of the installed PEFT, and every option of LoRA, trained with replay: docs/adapters.md.

    python -m tests.adapters.run            # all, about five minutes
    python -m tests.adapters.run VERA CPT   # some

A row is exact where the KL that the run reads equals the KL of the logits of PEFT's own forward pass, before and after
training; the run with λ = 0 ends at the weights of TRL's trainer; and the saved adapter gives the trained logits again.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tempfile
import traceback
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from transformers import Trainer
from trl import SFTTrainer

from keeptune.errors import KeeptuneError, SourceError
from keeptune.models.loading import load_model
from keeptune.train.config import KeepConfig
from keeptune.train.readings import FILE, read_rows
from keeptune.train.trainers import KeepSFTTrainer, KeepTrainer
from tests.helpers.adapters import OPTIONS, PREPARED, TYPES, make_base, make_config, prepared
from tests.helpers.models import make_tokenizer
from tests.helpers.training import config, largest_gap, task_rows, trained

ROOT = Path(__file__).parents[2]
RESULT, PAGE = ROOT / "docs" / "adapters.json", ROOT / "docs" / "adapters.md"
TOLERANCE = 1e-5
KEEP: dict[str, Any] = {"replay_tokens": 16 * 16, "replay_length": 16, "drift_rows": 4, "drift_every": 1}
# Where TRL's trainer cannot train an adapter, transformers' does.
HOSTS: dict[str, tuple[Any, Any]] = {"SFTTrainer": (SFTTrainer, KeepSFTTrainer), "Trainer": (Trainer, KeepTrainer)}
TASKS = ("MULTITASK_PROMPT_TUNING", "POLY")


def main() -> None:
    """Run the rows that are asked for, and write what came out."""
    names = [*TYPES, *OPTIONS, *PREPARED]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="PEFT types or options of LoRA; default all")
    asked = parser.parse_args().names or names
    if unknown := set(asked) - set(names):
        parser.error(f"no adapter is called {', '.join(sorted(unknown))}")
    rows = json.loads(RESULT.read_text(encoding="utf-8"))["rows"] if RESULT.is_file() else {}
    for name in asked:
        rows[name] = row_of(name)
        print(f"{name}: {rows[name]['result']}; {rows[name]['reason']}", flush=True)
    write({name: rows[name] for name in names if name in rows})
    sys.exit(any(rows[name]["result"] == "WRONG" for name in asked))


def row_of(name: str) -> dict[str, Any]:
    """One adapter, trained and saved in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder, _quietly():
        try:
            return measure(name, Path(folder))
        except Exception:
            return {"result": "WRONG", "reason": traceback.format_exc().splitlines()[-1], "merged": "", "host": ""}


def trainer(kind: Any, name: str, out: Path, **settings: Any) -> Any:
    """A trainer of `kind` with a fresh adapter on the base, as it is saved in out's parent."""
    base, adapter, rows = load_model(str(out.parent / "base")), make_config(name, out), task_rows()
    base.config.use_cache = False  # X-LoRA asks for it
    base = prepared(base, adapter)
    arguments: dict[str, Any] = {"model": base, "processing_class": make_tokenizer(), "peft_config": adapter}
    if not issubclass(kind, SFTTrainer):
        torch.manual_seed(0)
        arguments["model"] = get_peft_model(base, arguments.pop("peft_config"))
        rows = rows.add_column("task_ids", [0] * len(rows)) if name in TASKS else rows
    args = config(out, max_steps=4, learning_rate=3e-2, remove_unused_columns=name not in TASKS)
    return kind(args=args, train_dataset=rows, **arguments, **settings)


def measure(name: str, folder: Path) -> dict[str, Any]:
    """Whether everything of one adapter is exact, or the reason why it is refused."""
    make_base().save_pretrained(folder / "base")
    make_tokenizer().save_pretrained(folder / "base")
    problems = []
    for host, kinds in HOSTS.items():
        try:
            parent = trained(trainer(kinds[0], name, folder / "parent"))
        except Exception as error:
            problems.append(f"{host}: {_line(error)}")
            continue
        row = kept_as(kinds[1], name, folder, parent)
        return {**row, "host": host, "not by": problems}
    return {"result": "not trained by the parents", "reason": problems[0], "merged": "", "host": "", "not by": problems}


def kept_as(kind: Any, name: str, folder: Path, parent: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The adapter trained by keeptune's trainer of `kind`, whose parent ends at the weights `parent`."""
    plain = trained(trainer(kind, name, folder / "plain", keep=KeepConfig(lambda_=0.0, **KEEP)))
    try:
        kept = trainer(kind, name, folder / "kept", keep=KeepConfig(lambda_=1.0, **KEEP))
    except KeeptuneError as error:
        same = largest_gap(parent, plain) == 0.0
        return {"result": "refused" if same else "WRONG", "reason": _line(error), "merged": ""}
    base = load_model(str(folder / "base"))
    true_start = true_kl(base, kept)
    stored = trained(kept)
    readings, true_end = read_rows(folder / "kept" / FILE), true_kl(base, kept)
    kept.save_model(str(folder / "saved"))
    named = json.loads((folder / "saved" / "adapter_config.json").read_text("utf-8"))["base_model_name_or_path"]
    raw = load_model(named)
    raw.config.use_cache = False
    reloaded = PeftModel.from_pretrained(raw, str(folder / "saved")).eval()
    offs = {
        "KL before training": abs(readings[0]["KL"] - true_start),
        "KL after training": abs(readings[-1]["KL"] - true_end),
        "λ = 0 against its parent": largest_gap(parent, plain),
        "saved against trained": float((probe(reloaded) - probe(kept.model)).abs().max()),
        "adapter teacher": adapter_teacher(kind, name, folder, stored),
    }
    wrong = [what for what, off in offs.items() if not off <= TOLERANCE]
    row = {
        "result": "WRONG" if wrong else "exact",
        "reason": ", ".join(wrong),
        "kl": [readings[0]["KL"], readings[-1]["KL"]],
        "true_kl": [true_start, true_end],
        "off": offs,
        "merged": merged(folder, kept),
    }
    if readings[0]["KL"] > TOLERANCE and not wrong:
        row["reason"] = f"starts {readings[0]['KL']:.2g} nats per token from the base"
    return row


@torch.no_grad()
def true_kl(base: Any, kept: Any) -> float:
    """Mean KL(base‖model) on the run's drift rows, from the logits of PEFT's own forward pass."""
    inputs_BT = kept.context.drift_rows.inputs_BP
    kept.model.eval()
    tuned = kept.model(input_ids=inputs_BT, use_cache=False).logits[:, -inputs_BT.shape[1] :].log_softmax(-1)
    kept.model.train()
    own = base(input_ids=inputs_BT, use_cache=False).logits.log_softmax(-1)
    return float((own.exp() * (own - tuned)).sum(-1).double().mean())


@torch.no_grad()
def probe(model: Any) -> torch.Tensor:
    """Logits of PEFT's own forward pass on a row."""
    model.eval()
    logits: torch.Tensor = model(input_ids=torch.arange(3, 35)[None], use_cache=False).logits
    return logits[:, -32:]


def adapter_teacher(kind: Any, name: str, folder: Path, stored: dict[str, torch.Tensor]) -> float:
    """How far a run taught by the disabled adapter ends from one taught by stored states; 0 if refused."""
    try:
        run = trainer(kind, name, folder / "off", keep=KeepConfig(lambda_=1.0, teacher="adapter", **KEEP))
    except KeeptuneError:
        return 0.0
    return largest_gap(stored, trained(run))


def merged(folder: Path, kept: Any) -> str:
    """What `load_model` makes of the saved adapter: merged to the same logits, or refused."""
    try:
        model = load_model(str(folder / "saved"))
    except SourceError as error:
        return _line(error).replace(f"{folder / 'saved'} ", "").split("cannot be merged into its base: ")[-1]
    return "exact" if float((probe(model) - probe(kept.model)).abs().max()) < 1e-3 else "WRONG"


def _line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextlib.contextmanager
def _quietly() -> Any:
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def write(rows: dict[str, Any]) -> None:
    """docs/adapters.json, and the table that people read."""
    versions = {name: version(name) for name in ("peft", "transformers", "trl", "torch")}
    RESULT.write_text(json.dumps({"versions": versions, "rows": rows}, indent=1, ensure_ascii=False) + "\n", "utf-8")
    lines = [
        "# Adapters",
        "",
        f"Every adapter type of PEFT {versions['peft']}, and every option of LoRA that changes the base or the forward",
        "pass, trained with replay on a tiny Llama: `make adapters`. Raw result: [adapters.json](adapters.json).",
        "",
        "- **exact**: the KL that the run reads is that of the logits of PEFT's own forward pass, before and after",
        "  training; λ = 0 ends at the weights of the parent trainer, bit for bit; the saved adapter gives the trained",
        "  logits again; stored states and the disabled adapter teach the same weights.",
        "- **refused**: with λ above 0, for the reason given. λ = 0 trains it as the parent does, bit for bit.",
        "- **host**: TRL's `SFTTrainer`, or transformers' `Trainer` where TRL's own loss cannot train the adapter.",
        "- **merged**: what `load_model` and `keeptune audit` make of the saved adapter.",
        "",
        f"Tolerance {TOLERANCE:g}, in fp32.",
        "",
        "| adapter | result | reason or note | host | merged |",
        "|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        label = name if name in TYPES else f"LoRA, {name}"
        cells = (label, row["result"], row["reason"], row["host"], row["merged"])
        lines.append(f"| {' | '.join(_cell(text) for text in cells)} |")
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    main()
