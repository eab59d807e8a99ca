"""`keeptune replay`: make a replay pool from the base's own samples or from real text."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from keeptune.cli.arguments import Base
from keeptune.data.rows import ROW_LENGTH, SEED


def replay(
    model: Base,
    *,
    out: Annotated[
        Path, Parameter(help="Folder of the pool. An unfinished pool there is resumed, and a smaller one extended.")
    ],
    tokens: Annotated[
        int, Parameter(help="Tokens in the pool, rounded up to whole rows. A --text with fewer tokens is used whole.")
    ] = 98_304,
    length: Annotated[int, Parameter(help="Tokens in a row.")] = ROW_LENGTH,
    seed: Annotated[
        int,
        Parameter(
            help="Random seed of sampling, or of the order of --text documents. The same seed gives the same bytes."
        ),
    ] = SEED,
    text: Annotated[
        str | None, Parameter(help="Use real text instead of samples: a data set, named as DATA in keeptune tune.")
    ] = None,
    document_start: Annotated[
        str | None, Parameter(help="Token that starts a document. Give it if the detected one is wrong.")
    ] = None,
    prompts: Annotated[
        Literal["document", "chat"],
        Parameter(help="Start rows as a document, or as a chat, whose user turns the model writes too."),
    ] = "document",
    temperature: Annotated[
        float,
        Parameter(
            help="Sampling temperature. Values below 1 give more typical text, above 1 more varied text. Stored "
            "predictions are always those at temperature 1. Keep 1 for next-token replay."
        ),
    ] = 1.0,
    predictions: Annotated[
        Literal["hidden", "topk", "none"],
        Parameter(help="What to store of the base's predictions: hidden states (exact), topk tokens (small), or none."),
    ] = "hidden",
    top_k: Annotated[int, Parameter(help="Tokens stored of each prediction, with --predictions topk.")] = 64,
    show: Annotated[int, Parameter(help="Number of samples to print when done.")] = 0,
) -> None:
    """Write a replay pool; see `keeptune.cli.help`."""
    from keeptune.errors import ConfigError

    if tokens < 1 or length < 2:
        raise ConfigError(
            f"cannot make a pool of {tokens} tokens in rows of {length}", "give --tokens 1 or more, --length 2 or more"
        )
    if text is not None and (prompts == "chat" or temperature != 1.0):
        raise ConfigError(
            "--prompts and --temperature are for sampling, and --text uses real text",
            "leave out --text, or leave out --prompts and --temperature",
        )
    rows = {"tokens": tokens, "length": length, "seed": seed, "start": document_start}
    stored = {"predictions": predictions, "top_k": top_k}
    sampling = {} if text is not None else {"prompts": prompts, "temperature": temperature}
    _write_pool(model, out, text, rows, stored | sampling, show)


def _write_pool(
    model: str, out: Path, text: str | None, rows: dict[str, Any], settings: dict[str, Any], show: int
) -> None:
    from keeptune.data.encode import text_rows
    from keeptune.log import say
    from keeptune.models.loading import load_model, load_tokenizer
    from keeptune.models.modeling import select_attention
    from keeptune.replay.generate import sample_pool, text_pool

    tokenizer = load_tokenizer(model)
    # Real text is cut before the model is loaded, so that a wrong name is reported at once.
    given = None if text is None else text_rows(text, tokenizer, **rows)
    base = load_model(model)
    select_attention(base, rows["length"])  # as in training, so that the stored states match what training computes
    if given is None:
        pool = sample_pool(base, tokenizer, out, **rows, **settings)
    else:
        pool = text_pool(base, tokenizer, out, given, source=text, **settings)
    size = sum(file.stat().st_size for file in out.iterdir())
    say(f"{out}: {pool.rows} rows of {pool.settings.length} tokens, {size / 2**20:.0f} MiB")
    for row in range(min(show, pool.rows)):
        tokens_T1 = pool.tokens_of(row)
        sys.stdout.write(f"── sample {row + 1}\n{tokenizer.decode(tokens_T1[1 + len(pool.settings.opening) :])}\n")
