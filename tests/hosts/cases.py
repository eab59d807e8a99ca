"""What is run in each host: its own command, and what must come out of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
KEEP = {"lambda": 4.0, "replay_tokens": 2048, "replay_length": 32, "drift_rows": 8, "drift_every": 4}
_STEPS = 12
_RATE = 3e-3


@dataclass(frozen=True)
class Case:
    """One run of a host."""

    name: str
    shows: str
    command: Callable[[Path, Path, Path], list[str]]
    """From the environment's bin, the folder with model and chats, and the run's own folder."""
    refused: str | None = None
    """Words of the refusal; None for a run that must end well."""
    same_losses_as: str | None = None
    """An earlier case whose training losses must be equal to the last digit."""
    drifts_less_than: str | None = None
    """An earlier case whose last KL must be larger by a fifth at least."""
    writes: tuple[str, ...] = ()
    """Files that must be there."""
    environment: dict[str, str] = field(default_factory=dict)


def axolotl(keep: dict[str, Any] | None, **more: Any) -> Callable[[Path, Path, Path], list[str]]:
    """`axolotl train`, with a YAML file as a user writes it."""

    def command(binaries: Path, work: Path, out: Path) -> list[str]:
        settings: dict[str, Any] = {
            "base_model": str(work / "model"),
            "datasets": [{"path": str(work / "chats.jsonl"), "ds_type": "json", "type": "chat_template"}],
            "val_set_size": 0.125,
            "sequence_len": 64,
            "micro_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "max_steps": _STEPS,
            "learning_rate": _RATE,
            "optimizer": "adamw_torch",
            "lr_scheduler": "constant",
            "logging_steps": 1,
            "bf16": False,
            "fp16": False,
            "tf32": False,
            "special_tokens": {"pad_token": "<|im_end|>"},
            "output_dir": str(out),
            # One for all runs: Axolotl's order of the rows depends on it.
            "dataset_prepared_path": str(work / "prepared"),
            "seed": 1,
        }
        if keep is not None:
            settings |= {"plugins": ["keeptune.integrations.axolotl.KeepPlugin"], "keep": keep}
        file = out.with_suffix(".yml")
        file.write_text(yaml.safe_dump(settings | more, sort_keys=False), encoding="utf-8")
        return [str(binaries / "axolotl"), "train", str(file), "--launcher", "python"]

    return command


def swift(
    keep: dict[str, Any] | None, *more: str, verb: str = "sft", data: str = "chats.jsonl"
) -> Callable[[Path, Path, Path], list[str]]:
    """`swift sft`, with keeptune's plugin where settings are given."""

    def command(binaries: Path, work: Path, out: Path) -> list[str]:
        given = {
            "model": work / "model",
            "model_type": "llama",
            "template": "chatml",
            "dataset": work / data,
            "split_dataset_ratio": 0.125,
            "tuner_type": "full",
            "torch_dtype": "float32",
            "max_length": 64,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 2,
            "max_steps": _STEPS,
            "learning_rate": _RATE,
            "lr_scheduler_type": "constant",
            "logging_steps": 1,
            "output_dir": out,
            "add_version": "false",
            "gradient_checkpointing": "false",
        }
        if keep is not None:
            out.with_suffix(".toml").write_text(
                "".join(f"{name} = {value}\n" for name, value in keep.items()), encoding="utf-8"
            )
            given["external_plugins"] = ROOT / "src/keeptune/integrations/swift/plugin.py"
        flags = [part for name, value in given.items() for part in (f"--{name}", str(value))]
        return [str(binaries / "swift"), verb, *flags, *more]

    return command


def llama_factory(mode: str) -> Callable[[Path, Path, Path], list[str]]:
    """`run_exp(..., callbacks=[...])`."""
    script = ROOT / "tests/hosts/llama_factory.py"
    return lambda binaries, work, out: [str(binaries / "python"), str(script), str(work), mode, str(out)]


def unsloth(weight: float, *, late: bool = False) -> Callable[[Path, Path, Path], list[str]]:
    """The recipe; `late` imports keeptune's trainer before Unsloth."""

    def command(binaries: Path, work: Path, out: Path) -> list[str]:
        recipe = ROOT / "recipes/unsloth_sft.py"
        first = "from keeptune import KeepSFTTrainer; " if late else ""
        run = f"import runpy; {first}runpy.run_path({str(recipe)!r}, run_name='__main__')"
        flags = ["--model", work / "model", "--data", work / "chats.jsonl", "--out", out, "--steps", _STEPS]
        flags += ["--lambda", weight, "--replay-tokens", 2048]
        return [str(binaries / "python"), "-c", run, *map(str, flags)]

    return command


# Axolotl turns its Triton kernels for LoRA on by itself; a CPU has none.
_KERNELS = dict.fromkeys(("lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel"), False)
_LORA = {"adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_target_linear": True, **_KERNELS}
_AUDIT = {"docs": 8, "max_length": 64}
_UNKEPT = {**KEEP, "lambda": 0.0}
_SWIFT_LORA = ("--tuner_type", "lora", "--lora_rank", "4", "--target_modules", "all-linear")

CASES: dict[str, list[Case]] = {
    "axolotl": [
        Case("plain", "Axolotl alone, on a CPU", axolotl(None)),
        Case(
            "λ = 0",
            "readings change no loss",
            axolotl({**_UNKEPT, "audit": False}),
            same_losses_as="plain",
        ),
        Case(
            "keep",
            "Axolotl's trainer with replay, then the audit",
            axolotl({**KEEP, "audit": _AUDIT}),
            drifts_less_than="λ = 0",
            writes=("audit/report.json",),
        ),
        Case(
            "keep, LoRA",
            "the base is the model with its adapter disabled",
            axolotl({**KEEP, "audit": _AUDIT}, **_LORA),
            writes=("audit/report.json", "adapter_config.json"),
        ),
        Case(
            "keep, packing",
            "Axolotl packs samples into rows",
            axolotl({**KEEP, "audit": False}, sample_packing=True, eval_sample_packing=False),
        ),
        Case("unknown field", "is refused by name", axolotl({"lamda": 1.0}), refused="lamda"),
        Case("bad value", "is refused before a model loads", axolotl({"lambda": -1.0}), refused="set it to 0 or more"),
        Case(
            "rl: dpo", "is refused: replay joins supervised fine-tuning", axolotl(KEEP, rl="dpo"), refused="rl is set"
        ),
        Case(
            "the module's name",
            "in place of the class's is answered with the class's",
            axolotl(None, plugins=["keeptune.integrations.axolotl"]),
            refused="keeptune.integrations.axolotl.KeepPlugin",
        ),
    ],
    "ms-swift": [
        Case("plain", "swift sft alone, on a CPU", swift(None)),
        Case("λ = 0", "readings change no loss", swift(_UNKEPT), same_losses_as="plain"),
        Case("keep", "ms-swift's trainer with replay", swift(KEEP), drifts_less_than="λ = 0"),
        Case("keep, LoRA", "the base is the model with its adapter disabled", swift(KEEP, *_SWIFT_LORA)),
        Case(
            "swift rlhf",
            "is refused: replay joins supervised fine-tuning",
            swift(KEEP, "--rlhf_type", "orpo", verb="rlhf", data="pairs.jsonl"),
            refused="this run is of the kind 'orpo'",
        ),
        Case("unknown field", "is refused by name", swift({"lamda": 1.0}), refused="lamda"),
    ],
    "llama-factory": [
        Case("plain", "run_exp alone, on a CPU", llama_factory("plain")),
        Case("readings", "drift is read, and no loss changes", llama_factory("full"), same_losses_as="plain"),
        Case("readings, LoRA", "drift is read", llama_factory("lora")),
        Case("λ = 1", "is refused: a callback cannot change the loss", llama_factory("refused"), refused="cannot add"),
    ],
    "unsloth": [
        Case("λ = 0", "plain fine-tuning", unsloth(0.0)),
        Case("keep", "the recipe", unsloth(4.0)),
        Case("late", "keeptune's trainer imported before unsloth", unsloth(1.0, late=True), refused="import unsloth"),
    ],
}


def losses(out: Path) -> list[float]:
    """The training losses of a run, as its last checkpoint holds them."""
    states = sorted(out.glob("**/trainer_state.json"), key=lambda file: file.stat().st_mtime)
    history = json.loads(states[-1].read_text(encoding="utf-8"))["log_history"] if states else []
    return [entry["loss"] for entry in history if "loss" in entry]


def readings(out: Path) -> list[dict[str, Any]]:
    """The run's readings of drift, with the columns that a reader of the table needs."""
    file = out / "runs.jsonl"
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.is_file() else []
    return [{name: row[name] for name in ("step", "KL", "L_f", "L_ft", "L_ft_on", "lambda")} for row in rows]
