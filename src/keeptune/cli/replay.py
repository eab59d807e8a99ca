"""`keeptune replay`: the base writes a replay pool, or reads one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter


def replay(
    model: Annotated[str, Parameter(help="The base: a hub id, a folder, a .gguf file, or smollm2.")],
    *,
    out: Annotated[Path, Parameter(help="Folder of the pool. An unfinished pool there is finished, a smaller grown.")],
    tokens: Annotated[
        int, Parameter(help="Tokens to write, rounded up to whole rows; of --text, all where it is shorter.")
    ] = 98_304,
    length: Annotated[int, Parameter(help="Tokens in a row.")] = 128,
    seed: Annotated[int, Parameter(help="The same seed gives the same bytes; of --text, the order of documents.")] = 0,
    text: Annotated[
        str | None, Parameter(help="Take real text in place of the base's own, named as DATA of keeptune tune is.")
    ] = None,
    document_start: Annotated[
        str | None, Parameter(help="Token that starts a document, where the one found is wrong.")
    ] = None,
    prompts: Annotated[
        Literal["document", "chat"],
        Parameter(help="Rows start as a document does, or as a chat: the model then writes the user's words too."),
    ] = "document",
    temperature: Annotated[
        float,
        Parameter(
            help="Of drawing: below 1 likelier text, above 1 less likely. What is kept is of 1 always. Next-token "
            "replay wants 1."
        ),
    ] = 1.0,
    predictions: Annotated[
        Literal["hidden", "topk", "none"],
        Parameter(help="Kept of the base's predictions: hidden states (exact), topk words (small), or none."),
    ] = "hidden",
    top_k: Annotated[int, Parameter(help="Words kept of each prediction, with topk.")] = 64,
    show: Annotated[int, Parameter(help="Print so many samples when done.")] = 0,
) -> None:
    """Write a replay pool; see `keeptune.cli.help`."""
    from keeptune.errors import ConfigError
    from keeptune.log import say
    from keeptune.models.loading import load_model, load_tokenizer
    from keeptune.models.modeling import select_attention
    from keeptune.replay.generate import sample_pool
    from keeptune.replay.text import text_pool, text_rows

    if tokens < 1 or length < 2:
        raise ConfigError(
            f"cannot write {tokens} tokens in rows of {length}", "give 1 token or more, rows of 2 or more"
        )
    if text is not None and (prompts == "chat" or temperature != 1.0):
        raise ConfigError(
            "real text is read as it is: it does not start as a chat, and nothing is drawn at a temperature",
            "leave out --text, or --prompts and --temperature",
        )
    tokenizer = load_tokenizer(model)
    how: dict[str, Any] = {"length": length, "seed": seed, "start": document_start}
    rows = None if text is None else text_rows(text, tokenizer, tokens=tokens, **how)
    base = load_model(model)
    select_attention(base, length)  # as training does, or the base would differ from its own stored states
    kept: dict[str, Any] = {"predictions": predictions, "top_k": top_k}
    if rows is None:
        pool = sample_pool(base, tokenizer, out, tokens=tokens, prompts=prompts, temperature=temperature, **how, **kept)
    else:
        pool = text_pool(base, tokenizer, out, rows, source=str(text), **kept)
    size = sum(file.stat().st_size for file in out.iterdir())
    say(f"{out}: {pool.rows} rows of {pool.settings.length} tokens, {size / 2**20:.0f} MiB")
    for row in range(min(show, pool.rows)):
        tokens_T1 = pool.tokens_of(row)
        sys.stdout.write(f"── sample {row + 1}\n{tokenizer.decode(tokens_T1[1 + len(pool.settings.opening) :])}\n")
