"""What `run.py` does in an environment that holds keeptune and nothing of its checkout. Run with `python -I`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch
from datasets import Dataset
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import SFTConfig

import keeptune

TINY = ["--tokens", "1024", "--length", "16"]
RUN = ["--replay", "pool", "--steps", "2", "--max-length", "32", "--drift-rows", "4"]


def main(programs: Path) -> None:
    """Import everything public, then run each verb of the main job on a tiny model."""
    assert Path(keeptune.__file__).is_relative_to(programs.parent), f"{keeptune.__file__} is not the installed package"
    assert (Path(keeptune.__file__).parent / "py.typed").is_file()
    for name in keeptune.__all__:
        getattr(keeptune, name)
    make_base(Path("base"))
    Path("notes").mkdir()
    for number in range(12):
        Path(f"notes/{number}.txt").write_text(f"Note {number} speaks of the number {number}. " * 3)
    program = str(programs / "keeptune")
    for command in (
        ["--version"],
        ["tune", "--help"],
        ["replay", "base", "--out", "pool", *TINY],
        ["tune", "base", "notes/*.txt", "--out", "run", *RUN],
        ["audit", "base", "run/model", "--text", "notes=notes/*.txt", "--docs", "12", "--max-length", "32"],
    ):
        print("keeptune", *command, flush=True)
        subprocess.run([program, *command], check=True)
    assert Path("audit/report.html").is_file()
    trainer = keeptune.KeepSFTTrainer(
        model="base",
        args=SFTConfig(output_dir="trainer", max_steps=2, max_length=32, bf16=False, use_cpu=True, report_to="none"),
        train_dataset=Dataset.from_dict({"text": [path.read_text() for path in Path("notes").iterdir()]}),
        keep=keeptune.KeepConfig(replay_tokens=512, replay_length=16, drift_rows=4),
    )
    trainer.train()


def make_base(folder: Path) -> None:
    """A random Llama of two layers and a byte tokenizer."""
    vocabulary = {
        symbol: index for index, symbol in enumerate(("<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet())))
    }
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = dict.fromkeys(("bos_token", "eos_token", "pad_token"), "<|endoftext|>")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"vocab_size": len(vocabulary), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}
    ends = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    LlamaForCausalLM(LlamaConfig(**sizes, **heads, **ends, initializer_range=0.15)).save_pretrained(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
