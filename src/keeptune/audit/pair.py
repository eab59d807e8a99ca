"""The two models of an audit, checked to predict over the same tokens."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from keeptune.errors import ConfigError

_SHOWN_TOKENS = 5


@dataclass(frozen=True, kw_only=True)
class Vocabularies:
    """What two models' tokens have in common."""

    words: int
    """Ids below it have an output in both models."""
    differing: dict[int, tuple[str | None, str | None]]
    """Ids that stand for another token in each: the base's and the tuned model's, None for no token."""
    sizes: tuple[int, int]
    """Outputs of the base and of the tuned model."""

    @property
    def same(self) -> bool:
        """Whether both models predict over the same tokens."""
        return not self.differing and self.sizes[0] == self.sizes[1]

    def __str__(self) -> str:
        """In words."""
        named = [f"{index}: {left!r} and {right!r}" for index, (left, right) in sorted(self.differing.items())]
        more = f" and {len(named) - _SHOWN_TOKENS} more" if len(named) > _SHOWN_TOKENS else ""
        tokens = f"; tokens that differ, {', '.join(named[:_SHOWN_TOKENS])}{more}" if named else ""
        return f"{self.sizes[0]} and {self.sizes[1]} outputs{tokens}"


def vocabularies(
    base: PreTrainedModel,
    tuned: PreTrainedModel,
    base_tokenizer: PreTrainedTokenizerBase,
    tuned_tokenizer: PreTrainedTokenizerBase,
) -> Vocabularies:
    """Compare two models' tokens by id."""
    sizes = (_outputs(base), _outputs(tuned))
    left, right = _by_id(base_tokenizer), _by_id(tuned_tokenizer)
    differing = {
        index: (left.get(index), right.get(index))
        for index in left.keys() | right.keys()
        if left.get(index) != right.get(index)
    }
    return Vocabularies(words=min(sizes), differing=differing, sizes=sizes)


def check_vocabularies(found: Vocabularies) -> None:
    """Refuse models whose predictions are not over the same tokens.

    Raises:
        ConfigError: they are not.
    """
    if not found.same:
        raise ConfigError(
            f"the models have different vocabularies ({found})",
            "compare a tuned model with the base it was tuned from, or add --shared-vocabulary to compare them on the "
            "tokens and the texts that both have",
        )


def share_vocabulary(base: PreTrainedModel, tuned: PreTrainedModel, found: Vocabularies) -> None:
    """Cut both models' vocabularies to the tokens that both have: their predictions are then among these.

    Raises:
        ConfigError: most tokens differ, so that the same text is not the same tokens.
    """
    if sum(index < found.words for index in found.differing) > found.words // 2:
        raise ConfigError(
            f"the models cut text into different tokens ({found})", "compare models that share a tokenizer"
        )
    for model in (base, tuned):
        if _outputs(model) > found.words:
            model.resize_token_embeddings(found.words, mean_resizing=False)


def _outputs(model: PreTrainedModel) -> int:
    return len(model.get_output_embeddings().weight)


def _by_id(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    return {index: token for token, index in tokenizer.get_vocab().items()}
