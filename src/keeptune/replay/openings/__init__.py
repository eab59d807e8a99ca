"""What opens a row: the tokens before its targets, which are context and bear neither loss nor reading.

A row starts as a document, with an opening by the rule of `keeptune.replay.openings.candidates`; or as a chat, with
what the chat template puts before a user's words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from math import inf
from pathlib import Path
from typing import Any, Literal, TypedDict, cast, get_args

from torch import nn
from transformers import PreTrainedTokenizerBase

from keeptune.data.templates import RENDERING_ERRORS, current_day, dated, on_day, own_template
from keeptune.errors import ConfigError
from keeptune.log import logger
from keeptune.models.limits import learned_positions
from keeptune.models.vocabulary import document_start
from keeptune.replay.manifest import Opening, PoolSettings, Probed, read_manifest
from keeptune.replay.openings.candidates import candidates_for, choose
from keeptune.replay.openings.probe import Prober

Prompts = Literal["document", "chat", "mixed"]
OpeningIds = Sequence[int] | Sequence[Sequence[int]]

# The age at which an unfinished pool of dated chats is no longer continued.
_DAYS = 400

# Words that no template contains, without white space at the ends, which templates strip.
_USER_WORDS = "~keeptune~user~words~"


class OpeningSettings(TypedDict):
    """The fields of `PoolSettings` about openings."""

    start_token: int
    start_text: str
    prompts: str
    opening: str
    openings: list[list[int]]
    probe: dict[str, Probed]


@dataclass(frozen=True, kw_only=True)
class Openings:
    """How the rows of a pool open."""

    settings: OpeningSettings
    description: str
    """One line or more, for the log."""

    @property
    def ids(self) -> list[list[int]]:
        """The openings, which rows use in turn."""
        return self.settings["openings"]

    @property
    def longest(self) -> int:
        """Tokens of the longest opening."""
        return max(map(len, self.ids))


def find_openings(
    model: nn.Module,
    tokenizer: Any,
    *,
    prompts: Prompts = "document",
    start: str | int | Sequence[str | int] | None = None,
    opening: Opening = "auto",
    length: int,
    seed: int,
    known: PoolSettings | None = None,
) -> Openings:
    """The openings of rows of `length` targets.

    Args:
        model: the base, as it is to be probed: without an adapter.
        prompts: rows start as documents, as chats, or (mixed) as a document and as a chat in turn.
        start: the token that starts a document, where the detected one is wrong. Several open rows in turn, unprobed.
        opening: a name in the table of `keeptune.replay.openings.candidates`, or `auto` for the rule.
        seed: of the base's own texts.
        known: settings of a pool of the same base, whose openings are taken over if they are what is asked for.

    Raises:
        ConfigError: an unknown start token or opening, no chat template, or an opening beside chats or several starts.
    """
    if opening not in get_args(Opening):
        raise ConfigError(f"unknown opening {opening!r}", f"choose one of {', '.join(get_args(Opening))}")
    if prompts == "mixed":
        chat = chat_opening(tokenizer, known)
        if known is not None and known.prompts == "mixed":
            known = replace(known, prompts="document start", openings=known.openings[::2])
        documents = find_openings(model, tokenizer, start=start, opening=opening, length=length, seed=seed, known=known)
        return _mixed(documents, chat, tokenizer)
    if prompts == "chat" or not (start is None or isinstance(start, str | int)):
        return _unprobed(tokenizer, prompts, start, opening, known)
    newline = tokenizer("\n", add_special_tokens=False, verbose=False)["input_ids"]
    try:
        first, why = document_start(tokenizer, override=start)
    except ConfigError as error:
        if start is not None or opening not in ("auto", "newline") or not newline:
            raise
        logger.warning(f"{error.what}: rows open with a newline")
        return _given(tokenizer, "newline", [newline], "a newline")
    same = known is not None and (known.prompts, known.start_token) == ("document start", first)
    if known is not None and same and opening in ("auto", known.opening):
        return _found(tokenizer, first, known.opening, known.openings, known.probe, "as in the pool")
    prober = Prober(model, tokenizer, seed)
    candidates = candidates_for(prober, first, newline, (learned_positions(model) or inf) - length + 1)
    if opening != "auto":
        if opening not in candidates:
            raise ConfigError(
                f"the opening {opening!r} does not fit rows of {length} tokens into the model's positions, or the"
                " tokenizer has no newline",
                "choose auto, another opening, or shorter rows",
            )
        candidates = {opening: candidates[opening]}
    name, openings, probes = choose(candidates, prober)
    return _found(tokenizer, first, name, openings, {n: cast(Probed, asdict(p)) for n, p in probes.items()}, why)


def _unprobed(
    tokenizer: Any,
    prompts: Prompts,
    start: str | int | Sequence[str | int] | None,
    opening: Opening,
    known: PoolSettings | None,
) -> Openings:
    """A chat's opening, or several start tokens: neither leaves anything to choose."""
    if opening != "auto":
        what = "chats open as the chat template says" if prompts == "chat" else "several start tokens open rows in turn"
        raise ConfigError(f"{what}, and opening is {opening!r}", "leave opening out, or open rows as documents")
    if prompts == "chat":
        words = "the chat template up to the user's first words"
        return _given(tokenizer, "chat", [chat_opening(tokenizer, known)], words)
    starts = [start] if start is None or isinstance(start, str | int) else start
    firsts = [document_start(tokenizer, override=token)[0] for token in starts]
    if not firsts:
        raise ConfigError("the list of start tokens is empty", "give one or more, or leave start out")
    return _given(tokenizer, "given", [[first] for first in firsts], f"{len(firsts)} tokens as given, in turn")


def _mixed(documents: Openings, chat: list[int], tokenizer: Any) -> Openings:
    """The openings of documents, each followed by a chat's."""
    openings = [opening for document in documents.ids for opening in (document, chat)]
    return Openings(
        settings={**documents.settings, "openings": openings, "prompts": "mixed"},
        description=f"{documents.description}; every second row opens as a chat, with {tokenizer.decode(chat)!r}",
    )


def chat_opening(tokenizer: PreTrainedTokenizerBase, known: PoolSettings | None = None) -> list[int]:
    """The ids that the chat template puts before a user's first words.

    A chat model continues them with the user's turn and then with the answer (Magpie, arXiv 2406.08464). A template
    that writes the date opens the rows of a pool as on the day on which `known`, its settings, were written.

    Raises:
        ConfigError: there is no chat template, or no such opening.
    """
    today = _chat_opening(tokenizer)
    if known is None or today in known.openings or known.prompts not in ("chat", "mixed"):
        return today
    for back in range(1, _DAYS + 1):
        with on_day(current_day() - timedelta(days=back)):
            if (then := _chat_opening(tokenizer)) in known.openings:
                return then
    return today


def _chat_opening(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    fix = "start rows as documents instead (--prompts document)"
    if not tokenizer.chat_template:
        raise ConfigError("the tokenizer has no chat template to open a chat with", fix)
    turn, template = [{"role": "user", "content": _USER_WORDS}], own_template(tokenizer)
    try:
        text = str(tokenizer.apply_chat_template(turn, chat_template=dated(template), tokenize=False))
    except RENDERING_ERRORS as error:
        raise ConfigError(f"the chat template cannot render a user's turn: {error}", fix) from error
    before, words, _ = text.partition(_USER_WORDS)
    opening: list[int] = tokenizer(before, add_special_tokens=False)["input_ids"]
    if not words or not opening:
        raise ConfigError("the chat template puts nothing before a user's words, or changes them", fix)
    return opening


def recorded_openings(folder: str | Path) -> PoolSettings | None:
    """The settings of the pool in `folder`, finished or not; None if there is none."""
    pool = read_manifest(Path(folder))
    return None if pool is None else pool.settings


def describe(opening: str, openings: list[list[int]], probe: Mapping[str, Probed], tokenizer: Any) -> str:
    """How rows open, and the numbers of the probed candidates, a line each."""
    several = f", the first of {len(openings)}" if len(openings) > 1 else ""
    lines = [f"rows open with {tokenizer.decode(openings[0])!r}{several} ({opening}), which is context"]
    for name, numbers in probe.items():
        noise = "not measured"
        if numbers["noise"] is not None:
            noise = " ".join(f"{nats:.4f}" for nats in numbers["noise"])
        lines.append(
            f"  opening {name!r}: entropy of the first token {numbers['entropy']:.2f} nats, likeliest"
            f" {numbers['top']!r} {numbers['share']:.2f}, known text {numbers['known']:.2f} nats per token,"
            f" KL(float32‖16 bit) at the first positions {noise}"
        )
    return "\n".join(lines)


def _found(
    tokenizer: Any, first: int, name: str, openings: list[list[int]], probe: dict[str, Probed], why: str
) -> Openings:
    fields: OpeningSettings = {
        "start_token": first,
        "start_text": tokenizer.convert_ids_to_tokens(first),
        "prompts": "document start",
        "opening": name,
        "openings": openings,
        "probe": probe,
    }
    return Openings(settings=fields, description=f"{describe(name, openings, probe, tokenizer)}; {why}")


def _given(tokenizer: Any, name: str, openings: list[list[int]], why: str) -> Openings:
    """Openings that nobody probes."""
    opened = _found(tokenizer, openings[0][0], name, openings, {}, why)
    return Openings(
        settings={**opened.settings, "prompts": "chat" if name == "chat" else "document start"},
        description=opened.description,
    )
