"""Walk every field of TRL's SFTConfig through `keeptune tune` and write docs/sft-config.jsonl and docs/sft-config.md.

    make sft-config                                      # all fields, about five minutes on two cores
    python tests/sft_config/run.py report_to optim       # the rows of two

A field works if a run with it ends and its saved model loads; it is refused if a `ConfigError` names it before the
first step and the folder of the run is given back. Anything else ends this program with exit code 1.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
import tempfile
import traceback
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from transformers import AutoModelForCausalLM  # noqa: E402
from trl import SFTConfig  # noqa: E402

from keeptune.errors import ConfigError  # noqa: E402
from keeptune.runs.run import tune  # noqa: E402
from keeptune.runs.settings import TuneSettings  # noqa: E402
from keeptune.system import versions  # noqa: E402
from keeptune.train.readings import read_rows  # noqa: E402
from tests.helpers.models import make_model, make_tokenizer  # noqa: E402
from tests.sft_config.values import VALUES, tables  # noqa: E402

JSON, PAGE = ROOT / "docs" / "sft-config.jsonl", ROOT / "docs" / "sft-config.md"
HEAD = """# The table `[sft]` of a run file

Of the fields of TRL's `SFTConfig`, {works} of {fields} work in a table `[sft]`, with every value tried or with some;
all others are refused by name before anything is trained. `make sft-config` writes this table: it runs each row on a
tiny model ({versions}, on a CPU). `KeepSFTTrainer(args=SFTConfig(...))` takes all fields as TRL does, but for
DeepSpeed, FSDP1, `auto_find_batch_size`, and optimizers and schedules that cannot be made, which it refuses before a
pool is written.

| field | tried | result |
|---|---|---|
"""


def settings(home: Path, table: dict[str, Any]) -> TuneSettings:
    """A run of two steps on the tiny model."""
    small: dict[str, Any] = {"max_length": 32, "replay_tokens": 96, "replay_length": 16, "drift_rows": 2}
    steps = {} if {"max_steps", "num_train_epochs"} & set(table) else {"steps": 2}
    batch = {} if {"per_device_train_batch_size"} & set(table) else {"batch_size": 2}
    return TuneSettings(
        model=str(home / "base"), data=str(home / "texts" / "*.txt"), out=str(home / "out"), held_out_rows=4,
        sft=table, **small, **steps, **batch,
    )  # fmt: skip


def outcome(home: Path, table: dict[str, Any]) -> dict[str, Any]:
    """What became of a run with a table [sft]: `works`, `refused` with its two lines, or `fails` with an error."""
    out = home / "out"
    try:
        folder = tune(settings(home, table), overwrite=True)
        AutoModelForCausalLM.from_pretrained(folder)
        last = read_rows(out / "runs.jsonl")[-1]
        return {"result": "works"} if last["L_ft_on"] == "held-out" else {"result": "fails", "why": "no reading"}
    except ConfigError as error:
        left = out.is_dir() and not any(out.glob("checkpoint-*"))
        if left:
            return {"result": "fails", "why": f"refused ({error}), and its folder is left"}
        return {"result": "refused", "why": error.what, "fix": error.fix}
    except Exception as error:
        traceback.print_exc()
        return {"result": "fails", "why": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}


def walk(fields: list[str]) -> list[dict[str, Any]]:
    """A row for each value of each field."""
    rows = []
    for field in fields:
        for table in tables(field):
            with tempfile.TemporaryDirectory() as folder:
                home = Path(folder)
                (home / "texts").mkdir()
                for number in range(6):
                    (home / "texts" / f"{number}.txt").write_text(f"Document {number} is about {number}. " * 4)
                make_model().save_pretrained(home / "base")
                make_tokenizer().save_pretrained(home / "base")
                os.chdir(home)
                row = {"field": field, "sft": table, **outcome(home, table)}
                row = json.loads(json.dumps(row).replace(str(home), "HOME"))
            if row["result"] == "refused" and not any(name in row["why"] for name in table):
                row |= {"result": "fails", "why": f"refused without the name of a field: {row['why']}"}
            print(json.dumps(row), flush=True)
            rows.append(row)
    return rows


def page(rows: list[dict[str, Any]]) -> str:
    """The table as Markdown."""
    works = {row["field"] for row in rows if row["result"] == "works"}
    names = ", ".join(f"{name} {versions()[name]}" for name in ("trl", "transformers"))
    lines = [HEAD.format(works=len(works), fields=len({row["field"] for row in rows}), versions=names)]
    for row in rows:
        tried = ", ".join(f"{name} = {json.dumps(value)}" for name, value in row["sft"].items())
        why = row.get("why", "")
        short = why if len(why) < 200 else f"{why[:180].rsplit(' ', 1)[0]} …"
        result = "works" if row["result"] == "works" else f"{row['result']}: {short} → {row.get('fix', '')}"
        lines.append(f"| `{row['field']}` | `{tried}` | {result} |\n")
    return "".join(lines)


def main() -> int:
    """Walk the fields that are named, or all, and write their rows in docs/ anew."""
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    every = [field.name for field in dataclasses.fields(SFTConfig)]
    fields = sys.argv[1:] or sorted(every, key=lambda name: (name == "full_determinism", every.index(name)))
    if missing := sorted(set(fields) - set(VALUES)):
        print(f"no value to try in tests/sft_config/values.py: {', '.join(missing)}")
        return 1
    rows = walk(fields)
    failed = sorted({row["field"] for row in rows if row["result"] == "fails"})
    kept = [json.loads(line) for line in JSON.read_text(encoding="utf-8").splitlines()] if JSON.is_file() else []
    rows = sorted(
        [row for row in kept if row["field"] in every and row["field"] not in fields] + rows,
        key=lambda row: every.index(row["field"]),
    )
    JSON.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    PAGE.write_text(page(rows), encoding="utf-8")
    print(f"{len(rows)} rows, failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
