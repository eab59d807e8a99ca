"""`keeptune demo --quick`: the demo on a base that it trains itself, within two minutes and without a download.

The base is a decoder of half a million weights that learns English from the topics of Python's `help()`. The new task
is Python code of the standard library. Everything after the base is the demo: replay, two runs, a report.
"""

from __future__ import annotations

import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, get_cosine_schedule_with_warmup

from keeptune.data.documents import load_documents
from keeptune.demo.page import Summary
from keeptune.demo.plan import LENGTH, DemoPlan
from keeptune.demo.run import demo
from keeptune.errors import ConfigError
from keeptune.log import track
from keeptune.models.disk.saving import save_model
from keeptune.storage import atomic_folder

_START = "<|endoftext|>"
_VOCABULARY = 1024
_WIDTH = 128
_LAYERS = 2
_BASE_STEPS = 240
_BASE_ROWS = 16
_BASE_RATE = 8e-3


@dataclass(frozen=True, kw_only=True)
class QuickPlan(DemoPlan):
    """The demo's settings for the small base, which trains all its weights for more steps in less time."""

    steps: int = 48
    """See `DemoPlan`."""
    documents: int = 64
    """See `DemoPlan`."""
    rank: ClassVar[int | None] = None
    learning_rate: ClassVar[float] = 1e-3

    @classmethod
    def of(cls, plan: DemoPlan, data: str = f"{sysconfig.get_path('stdlib')}/asyncio/*.py") -> QuickPlan:
        """The quick demo in the folder and with the seed of `plan`.

        Raises:
            ConfigError: `plan` changes another setting.
        """
        default = DemoPlan()
        changed = [name for name, value in vars(plan).items() if getattr(default, name) != value]
        if other := [name.rstrip("_") for name in changed if name not in ("out", "seed")]:
            raise ConfigError(
                f"--quick sets {', '.join(other)} itself", f"leave --quick out, or leave --{' and --'.join(other)} out"
            )
        out = plan.out if "out" in changed else "demo-quick"
        return cls(out=out, seed=plan.seed, model=f"{out}/base", data=data)


def quick_demo(plan: QuickPlan) -> Summary:
    """Train the base unless it is there, then run the demo; returns its summary. Raises what `demo` raises."""
    plan.workspace.claim({**vars(plan), "out": None})
    if not Path(plan.model).is_dir():
        make_base(Path(plan.model), plan.seed)
    return demo(plan)


def make_base(folder: Path, seed: int, steps: int = _BASE_STEPS) -> None:
    """Train the base and save it with its tokenizer in `folder`."""
    texts = load_documents("pydoc")["text"]
    tokenizer = _tokenizer(texts)
    start = tokenizer.convert_tokens_to_ids(_START)
    tokens = torch.tensor([token for text in texts for token in (start, *tokenizer(text)["input_ids"])])
    torch.manual_seed(seed)
    model = LlamaForCausalLM(_config(start)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=_BASE_RATE, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = get_cosine_schedule_with_warmup(optimizer, steps // 24, steps)
    chosen = torch.Generator().manual_seed(seed)
    with track("A small base learns English", steps, "steps") as task:
        for _ in range(steps):
            first = torch.randint(len(tokens) - LENGTH, (_BASE_ROWS, 1), generator=chosen)
            rows_BT = tokens[first + torch.arange(LENGTH)]
            loss = model(input_ids=rows_BT, labels=rows_BT).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            task.advance(note=f"loss {loss.item():.2f}")
    with atomic_folder(folder) as temporary:
        save_model(model, tokenizer, temporary)


def _config(start: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=_VOCABULARY,
        hidden_size=_WIDTH,
        intermediate_size=3 * _WIDTH,
        num_hidden_layers=_LAYERS,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=4 * LENGTH,
        tie_word_embeddings=True,
        bos_token_id=start,
        eos_token_id=start,
        pad_token_id=start,
    )


def _tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """Byte pairs of the base's own text; every byte is a token, so that code can be read too."""
    pairs = Tokenizer(models.BPE())
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pairs.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCABULARY, special_tokens=[_START], initial_alphabet=alphabet, show_progress=False
    )
    pairs.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=pairs, bos_token=_START, eos_token=_START, pad_token=_START)
