"""`keeptune replay`: make a replay pool from the base's own samples or from real text."""

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from keeptune.cli.arguments import ESTIMATE, TFLOPS, Base, wants_estimate
from keeptune.data.rows import ROW_LENGTH, SEED

if TYPE_CHECKING:
    import torch

    from keeptune.replay.begin import Sampling
    from keeptune.replay.engines import EngineMaker
    from keeptune.replay.pool import ReplayPool


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class _Flags:
    """What `keeptune replay` can be told. The docstring under a field is its help text."""

    out: Path | None = None
    """Folder of the pool. An unfinished pool there is resumed, and a smaller one extended."""
    tokens: int = 98_304
    """Tokens in the pool, rounded up to whole rows. A --text with fewer tokens is used whole."""
    length: int = ROW_LENGTH
    """Tokens in a row."""
    seed: int = SEED
    """Random seed of sampling, or of the order of --text documents. The same seed gives the same bytes."""
    text: str | None = None
    """Use real text instead of samples: a data set, named as DATA in keeptune tune."""
    skip_bad_rows: bool = False
    """Leave out rows of --text that cannot be read; their number and the first of them are logged. By default the
    first such row is an error."""
    document_start: str | None = None
    """Token that starts a document. Give it if the detected one is wrong."""
    opening: Literal["auto", "start", "twice", "newline", "text", "start-text"] = "auto"
    """What stands before a row, as context: start, the token that starts a document; that token twice; a newline and
    that token; a newline, a short text of the base's own and that token; or start-text. auto takes the first after
    which the base's predictions are varied and hardly depend on rounding, and prints the numbers."""
    prompts: Literal["document", "chat", "mixed"] = "document"
    """Start rows as a document; as a chat, whose user turns the model writes too; or mixed, every second row as a chat.
    mixed keeps most of a model that is used for both."""
    chat_template: str | None = None
    """Jinja file that renders chats, or one of the tokenizer's templates by name. By default the tokenizer's own."""
    temperature: float = 1.0
    """Sampling temperature. Values below 1 give more typical text, above 1 more varied text. Stored predictions are
    always those at temperature 1. Keep 1 for next-token replay."""
    engine: Literal["torch", "vllm"] = "torch"
    """What samples the rows. vllm runs in an environment of its own, and is many times faster on a GPU."""
    vllm_python: str | None = None
    """The python of an environment in which vLLM is installed, for --engine vllm. By default that of the variable
    KEEPTUNE_VLLM_PYTHON, this one if it has vLLM, or uv, which makes one."""
    tensor_parallel: int = 1
    """GPUs over which vLLM spreads the base, for --engine vllm."""
    predictions: Literal["hidden", "topk", "none"] = "hidden"
    """What to store of the base's predictions: hidden states (exact), topk tokens (small), or none."""
    top_k: int = 64
    """Tokens stored of each prediction, with --predictions topk."""
    rows_per_shard: int | None = None
    """Rows sampled and written together: what a kill loses, and what processes share out. By default what fits in
    memory. Lower it so that every process started by torchrun has a shard to write."""
    shard: bool = False
    """Spread the base's weights over the processes started by torchrun (FSDP2), for a base that fits no single GPU.
    Each process reads its part of the weights only."""
    ray: int | None = None
    """Write with so many workers of Ray, a GPU each where the cluster has any. They take a shard at a time, may be on
    many machines that share the folder, and are replaced where they die. Needs the extra cluster."""
    load_in_4bit: bool = False
    """Quantize the base to 4 bits while loading, as keeptune tune --load-in-4bit does: a pool for such a run."""
    load_in_8bit: bool = False
    """Quantize the base to 8 bits while loading, as keeptune tune --load-in-8bit does."""
    show: int | Path = 0
    """Number of samples to print when done, after the opening of the rows and how varied they are. With a pool's folder
    instead of a number, and without --out, that pool is described and nothing is written."""
    estimate: Annotated[int | None, Parameter(help=ESTIMATE)] = None
    tflops: Annotated[float | None, Parameter(help=TFLOPS)] = None


_DEFAULTS = _Flags()


def replay(model: Base, *, flags: _Flags = _DEFAULTS) -> None:
    """Write a replay pool; see `keeptune.cli.help`."""
    from keeptune.errors import ConfigError

    if isinstance(flags.show, Path):
        if flags != replace(_DEFAULTS, show=flags.show):
            raise ConfigError(
                f"--show {flags.show} describes an existing pool, and other flags are given",
                "leave them out, or give --show a number of samples",
            )
        return _show_pool(model, flags.show, samples=3)
    if wants_estimate(flags.estimate, flags.tflops):
        from keeptune.cli.estimate import of_pool

        return of_pool(model, flags.out or Path(), flags, flags.estimate or 0, flags.tflops)
    if flags.out is None:
        raise ConfigError("no folder to write the pool to", "give --out FOLDER, or --show POOL to describe a pool")
    if flags.tokens < 1 or flags.length < 2:
        raise ConfigError(
            f"cannot make a pool of {flags.tokens} tokens in rows of {flags.length}",
            "give --tokens 1 or more, --length 2 or more",
        )
    if flags.text is not None and (flags.prompts != "document" or flags.temperature != 1.0):
        raise ConfigError(
            "--prompts and --temperature are for sampling, and --text uses real text",
            "leave out --text, or leave out --prompts and --temperature",
        )
    if flags.engine != "vllm" and (flags.vllm_python is not None or flags.tensor_parallel != 1):
        raise ConfigError("--vllm-python and --tensor-parallel are for vLLM", "add --engine vllm, or leave them out")
    if flags.tensor_parallel < 1:
        raise ConfigError(f"--tensor-parallel is {flags.tensor_parallel}", "give 1 or more")
    if flags.tensor_parallel > 1 and os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError(
            f"--tensor-parallel is {flags.tensor_parallel}, and each of several processes starts vLLM on one GPU",
            "start one process, whose vLLM takes all the GPUs; or leave out --tensor-parallel",
        )
    if flags.rows_per_shard is not None and (flags.rows_per_shard < 1 or flags.text is not None):
        raise ConfigError(f"--rows-per-shard is {flags.rows_per_shard}", "give 1 or more, and leave it out with --text")
    if flags.shard and (flags.engine != "torch" or flags.load_in_4bit or flags.load_in_8bit):
        raise ConfigError(
            "--shard spreads plain weights for the torch engine: vLLM reads the checkpoint itself, and bitsandbytes"
            " quantizes whole layers",
            "leave out --shard; vLLM spreads a base with --tensor-parallel",
        )
    if flags.ray is not None:
        _check_ray(flags)
    if flags.text is not None and flags.engine != "torch":
        raise ConfigError("--engine is for sampling, and --text uses real text", "leave out --engine or --text")
    if flags.chat_template is not None and flags.prompts == "document":
        fix = "add --prompts chat or --prompts mixed, or leave it out"
        raise ConfigError("--chat-template is for rows that start as a chat", fix)
    return _write_pool(model, flags, flags.out)


def _check_ray(flags: _Flags) -> None:
    """Raise `ConfigError` for what workers of Ray cannot do."""
    from keeptune.errors import ConfigError

    if flags.ray is None or flags.ray < 1:
        raise ConfigError(f"--ray is {flags.ray}", "give a number of workers, 1 or more")
    if flags.text is not None:
        raise ConfigError("--ray is for sampling, and --text uses real text", "leave out --ray or --text")
    if flags.shard:
        raise ConfigError(
            "--shard spreads the base over the processes of torchrun, and each worker of Ray holds it whole",
            "leave out --ray or --shard; --engine vllm --tensor-parallel N gives each worker N GPUs",
        )
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError("--ray starts its own workers, and this is one of several processes", "start one process")


def _write_pool(model: str, flags: _Flags, out: Path) -> None:
    from keeptune.log import logger, say
    from keeptune.models.loading import load_tokenizer
    from keeptune.replay.ranks import join_processes, together
    from keeptune.workspace import alone

    if flags.ray is not None:
        with alone(out):
            pool = _on_ray(model, flags, out, flags.ray)
    else:
        device = join_processes()
        with together() as ranks:
            if not ranks.is_main:
                logger.setLevel("ERROR")  # one process speaks for all
            with alone(out):
                pool = _make_pool(model, flags, out, device)
        if not ranks.is_main:
            return
    size = sum(file.stat().st_size for file in out.iterdir())
    say(f"{out}: {pool.rows} rows of {pool.settings.length} tokens, {size / 2**20:.0f} MiB")
    if isinstance(flags.show, int) and flags.show > 0:
        _describe(pool, load_tokenizer(model), flags.show)


def _make_pool(model: str, flags: _Flags, out: Path, device: "torch.device") -> "ReplayPool":
    from functools import partial

    from keeptune.data.encode import text_rows
    from keeptune.data.templates import select_template
    from keeptune.models.loading import load_model, load_tokenizer
    from keeptune.models.modeling import select_attention
    from keeptune.models.quantized import load_in
    from keeptune.models.sharded import place
    from keeptune.replay.generate import sample_pool, text_pool

    tokenizer, text = load_tokenizer(model), flags.text
    if flags.chat_template is not None:
        select_template(tokenizer, flags.chat_template)
    tokens, length, seed, start = flags.tokens, flags.length, flags.seed, flags.document_start
    # Real text is cut before the model is loaded, so that a wrong name is reported at once.
    cut = partial(text_rows, tokens=tokens, length=length, seed=seed, start=start, skip_bad_rows=flags.skip_bad_rows)
    given = None if text is None else cut(text, tokenizer)
    base = place(load_model(model, load_in=load_in(flags.load_in_4bit, flags.load_in_8bit), shard=flags.shard), device)
    select_attention(base, flags.length)  # as in training, so that the stored states match what training computes
    if given is not None:
        store = partial(text_pool, predictions=flags.predictions, top_k=flags.top_k, opening=flags.opening)
        return store(base, tokenizer, out, given, source=text)
    return sample_pool(base, tokenizer, out, tokens=tokens, **vars(_sampling(flags)))


def _on_ray(model: str, flags: _Flags, out: Path, workers: int) -> "ReplayPool":
    from keeptune.data.templates import select_template
    from keeptune.models.loading import load_tokenizer
    from keeptune.models.quantized import load_in
    from keeptune.replay.on_ray import sample_on_ray

    tokenizer = load_tokenizer(model)
    if flags.chat_template is not None:
        select_template(tokenizer, flags.chat_template)
    return sample_on_ray(
        model,
        tokenizer,
        out,
        workers=workers,
        tokens=flags.tokens,
        sampling=_sampling(flags),
        load_in=load_in(flags.load_in_4bit, flags.load_in_8bit),
        gpus=flags.tensor_parallel,
    )


def _sampling(flags: _Flags) -> "Sampling":
    from keeptune.replay.begin import Sampling

    return Sampling(
        length=flags.length,
        seed=flags.seed,
        start=flags.document_start,
        prompts=flags.prompts,
        opening=flags.opening,
        temperature=flags.temperature,
        predictions=flags.predictions,
        top_k=flags.top_k,
        engine=_engine(flags),
        rows_per_shard=flags.rows_per_shard,
    )


def _engine(flags: _Flags) -> "str | EngineMaker":
    from keeptune.replay.engines.vllm import VLLM

    if flags.engine == "torch":
        return "torch"
    options = {"tensor_parallel_size": flags.tensor_parallel} if flags.tensor_parallel > 1 else {}
    return VLLM(python=flags.vllm_python, options=options)


def _show_pool(model: str, folder: Path, *, samples: int) -> None:
    """Describe a pool that exists, without the model's weights."""
    from keeptune.errors import ConfigError
    from keeptune.models.loading import load_tokenizer
    from keeptune.replay.pool import ReplayPool

    pool, tokenizer = ReplayPool.open(folder), load_tokenizer(model)
    start, text = pool.settings.start_token, pool.settings.start_text
    if start >= len(tokenizer) or tokenizer.convert_ids_to_tokens(start) != text:
        raise ConfigError(
            f"the rows of {folder} start with token {start}, {text!r}, and {model} has another token there",
            "name the model that wrote the pool",
        )
    _describe(pool, tokenizer, samples)


def _describe(pool: "ReplayPool", tokenizer: Any, samples: int) -> None:
    """The opening of a pool's rows, how varied they are, and some of them, on standard output."""
    from keeptune.replay import openings
    from keeptune.replay.diversity import describe, languages_of, measure_diversity, pool_rows, separators

    rows, settings = pool_rows(pool), pool.settings
    found = measure_diversity(rows, tokenizer, separators(pool, tokenizer))
    opened = openings.describe(settings.opening, settings.openings, settings.probe, tokenizer)
    chats = f", every second row as a chat with {tokenizer.decode(settings.opening_of(1))!r}"
    lines = [opened, f"prompts: {settings.prompts}{chats * (settings.prompts == 'mixed')}; {settings.sampling}"]
    lines += describe(found, languages_of(rows, tokenizer))
    for row in range(min(samples, pool.rows)):
        tokens_T1 = pool.tokens_of(row)
        lines += [f"── sample {row + 1}", tokenizer.decode(tokens_T1[len(settings.opening_of(row)) :])]
    sys.stdout.write("\n".join(lines) + "\n")
