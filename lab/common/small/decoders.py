"""Small untrained decoders of the Llama family, which the lab pretrains itself."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

# Bars for loading a model of one megabyte would hide the progress of the training.
logging.disable_progress_bar()


def make_decoder(*, vocabulary: int, width: int, layers: int, heads: int, length: int, seed: int) -> LlamaForCausalLM:
    """A decoder with `layers` blocks, whose MLP is four times as wide, on the GPU if there is one.

    Weights have a standard deviation of 1/√width. The default of transformers, .02, suits widths near 2 500; narrow
    models need many more steps from there. The base of the rotary embedding is near `length`, so that short rows have
    slow positions too.

    Args:
        length: the longest row, in tokens.
        seed: seed of the weights.
    """
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=length,
        rope_parameters={"rope_type": "default", "rope_theta": float(max(length, 100))},
        initializer_range=width**-0.5,
        tie_word_embeddings=False,
    )
    return LlamaForCausalLM(config).to("cuda" if torch.cuda.is_available() else "cpu")


def tiny_base(folder: Path) -> None:
    """Write an untrained decoder with a byte tokenizer. It replaces the published models at size `smoke`."""
    start = "<|endoftext|>"
    vocabulary = {token: number for number, token in enumerate([start, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=start, eos_token=start, pad_token=start)
    fast.save_pretrained(folder)
    make_decoder(vocabulary=len(vocabulary), width=32, layers=2, heads=2, length=256, seed=0).save_pretrained(folder)
