"""Everything that a `keeptune tune` run can be told. The docstring under a field is its help text."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from trl import SFTConfig

from keeptune.data.rows import MAX_LENGTH, SEED
from keeptune.errors import ConfigError
from keeptune.models.quantized import LoadIn, load_in
from keeptune.runs.sft import sft_config, unknown_fields
from keeptune.train.config import DRIFT_EVERY, KeepConfig

DEFAULT_LR = {"full": 1e-4, "lora": 1e-3}


@dataclass(frozen=True, kw_only=True)
class TuneSettings(KeepConfig):
    """A run of `keeptune tune`: the replay term's settings and those of the run around it."""

    replay: str | None = None
    """Folder of a pool that keeptune replay wrote; by default the base writes one before training."""
    teacher: str = "auto"
    """Source of the base's predictions: `hidden` states on disk (exact), `topk` tokens on disk (small, blind in the
    tail), the model with its `adapter` disabled, or a `live` frozen copy. `auto` takes the first that fits."""
    drift_every: int = DRIFT_EVERY
    """Steps between readings of held-out task loss and drift; 0 reads at the start and the end only."""
    model: str
    """The base: a hub id, a folder, a .gguf file, or smollm2."""
    data: str
    """The new task: a hub data set, a file, folder or glob of rows (jsonl, csv, parquet) or text, verilog, or pydoc."""
    out: str
    """Folder of the run: model, readings, replay pool, checkpoints."""
    lora: int | None = None
    """Rank of a rank-stabilized LoRA on all linear layers; by default all weights are tuned."""
    load_in_4bit: bool = False
    """Quantize the base to 4 bits while loading, with bitsandbytes (QLoRA: NF4, double quantization). Needs lora; takes
    about a quarter of the memory of bfloat16 weights. The base whose predictions are kept is the quantized one."""
    load_in_8bit: bool = False
    """Quantize the base to 8 bits while loading, with bitsandbytes (LLM.int8()). Needs lora."""
    shard: bool = False
    """Spread the base's weights over the processes started by torchrun (FSDP2): each reads and holds its part only, and
    so does training. For a base that fits no single GPU, or no memory of one process. Needs checkpoint_every 0."""
    save_dtype: Literal["base", "float32", "bfloat16", "float16"] = "base"
    """Dtype of the saved weights. `base`: that of the base's own weights, or for an adapter the one it was trained in.
    float32 saves the trained values without rounding."""
    steps: int | None = None
    """Optimizer steps; by default one pass over the data."""
    learning_rate: float | None = None
    """Peak learning rate, cosine schedule; by default 1e-4, or 1e-3 with LoRA."""
    batch_size: int = 8
    """Task rows in a micro-batch on each device."""
    accumulate: int = 1
    """Micro-batches to an optimizer step."""
    max_length: int = MAX_LENGTH
    """Longest row in tokens: text is cut into windows, longer prompts and chats are left out and counted."""
    chat_template: str | None = None
    """Template that renders chats and is saved with the model: a Jinja file, or one of the tokenizer's several by name.
    By default the tokenizer's own."""
    append_eos: bool = True
    """End each document of plain text with the end-of-sequence token, as TRL does, so that the model learns to stop."""
    held_out: float = 0.1
    """Fraction of the documents kept out of training, on which task loss is read."""
    held_out_rows: int = 64
    """At most so many rows of the held-out documents are read, evenly spaced."""
    seed: int = SEED
    """Of everything random: split, order, adapter, replay."""
    checkpoint_every: int = 100
    """Steps between checkpoints, of which the last two are kept; 0 keeps none."""
    base_model: str | None = None
    """Id of the base on the Hub, for the model card. Give it where the base is a folder; by default it is MODEL."""
    license: str | None = None
    """License of the tuned model, for its card, such as apache-2.0; by default the one on the base's card."""
    push_to_hub: str | None = None
    """Id under which the finished model and its card are uploaded to the Hub; by default nothing is uploaded."""
    sft: Mapping[str, object] = field(default_factory=dict)
    """Any field of TRL's SFTConfig, as a table [sft] of the run file."""

    def __post_init__(self) -> None:
        """Validate the settings."""
        super().__post_init__()
        for name in ("lora", "steps", "batch_size", "accumulate", "held_out_rows"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}", "give 1 or more")
        if not 0 <= self.seed < 2**32:
            raise ConfigError(f"seed is {self.seed}", "give a whole number from 0 to 4294967295")
        if self.max_length < 2:
            raise ConfigError(f"max_length is {self.max_length}", "give 2 or more")
        if self.load_in and not self.lora:
            raise ConfigError(
                f"load_in_{self.load_in} quantizes the base, and quantized weights cannot be trained",
                "train an adapter on them: add lora, such as --lora 16",
            )
        if self.load_in and self.shard:
            raise ConfigError(
                f"load_in_{self.load_in} quantizes whole layers, and shard spreads each layer over processes",
                "leave out one of them",
            )
        if self.shard and self.checkpoint_every:
            raise ConfigError(
                f"checkpoint_every is {self.checkpoint_every}, and transformers cannot resume a model that was spread"
                " over processes while it was read (shard)",
                "add --checkpoint-every 0; or leave out shard and use FSDP2 of accelerate (recipes/fsdp2.yaml), which"
                " resumes, where the memory of the machine holds the base once for each process",
            )
        if not 0.0 < self.held_out < 1.0:
            raise ConfigError(f"held_out is {self.held_out}", "give a fraction between 0 and 1, such as 0.1")
        if self.learning_rate is not None and not self.learning_rate > 0:
            raise ConfigError(f"learning_rate is {self.learning_rate}", "give a positive number, such as 1e-4")
        packed_length = self.sft.get("max_length", self.max_length)
        fits = isinstance(packed_length, str) or (isinstance(packed_length, int) and packed_length >= self.max_length)
        if self.sft.get("packing") is True and not fits:
            raise ConfigError(
                f"[sft] packs rows of up to {self.max_length} tokens into rows of {packed_length}",
                f"give [sft] max_length = {self.max_length} or more, or leave it out",
            )
        if unknown := unknown_fields(self.sft):
            raise unknown

    @property
    def load_in(self) -> LoadIn | None:
        """How the base is quantized while loading."""
        return load_in(self.load_in_4bit, self.load_in_8bit)

    def sft_config(self, *, bf16: bool) -> SFTConfig:
        """The `SFTConfig` of the run; fields of `sft` win.

        Raises:
            ConfigError: the table holds a field that keeptune or TRL refuses, or a value of another type.
        """
        fields = {
            "output_dir": self.out,
            "per_device_train_batch_size": self.batch_size,
            "per_device_eval_batch_size": self.batch_size,
            "gradient_accumulation_steps": self.accumulate,
            "learning_rate": self.learning_rate or DEFAULT_LR["lora" if self.lora else "full"],
            "lr_scheduler_type": "cosine",
            "warmup_steps": 0.05,
            "max_steps": self.steps or -1,
            "num_train_epochs": 1.0,
            # Rows come cut to length already; packed rows are filled up to it.
            "max_length": self.max_length if self.sft.get("packing") else None,
            "eval_packing": False,
            "seed": self.seed,
            "bf16": bf16,
            "use_cpu": not torch.accelerator.is_available(),
            "gradient_checkpointing": False,
            "logging_steps": 1,
            "disable_tqdm": True,
            "save_strategy": "steps" if self.checkpoint_every else "no",
            "save_steps": self.checkpoint_every or 1,
            "save_total_limit": 2,
            "dataloader_pin_memory": False,
        }
        return sft_config(self, fields)
