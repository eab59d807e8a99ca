"""The table of measures: the name, unit, direction and words of everything that a `Finding` can say.

A section of the audit that measures something new adds a line with `register`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Literal

Better = Literal["lower", "higher"]


class Verdict(StrEnum):
    """What a finding says about its measure, against the value at which nothing has changed."""

    HIGHER = "higher"
    LOWER = "lower"
    NO_CHANGE = "no change"
    NO_EVIDENCE = "not enough evidence"
    CANNOT = "the base cannot do this"


NATS, SHARE = "nats per token", "share"
NOT_TOLD = "not distinguishable from zero"


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One line of the table."""

    name: str
    label: str
    """What a table calls it."""
    unit: str
    """`nats per token`, or `share` (shown as per cent)."""
    says: str
    """What it means, for someone who meets it for the first time."""
    definition: str = ""
    """The formula."""
    better: Better | None = None
    """Which way is better, where that is the same for every subject."""
    null: float | None = 0.0
    """The value at which nothing has changed; None for a measure that is never judged."""
    higher: str = "rose"
    lower: str = "fell"
    same: str = "no change beyond chance"
    """Verdicts in words."""
    noun: str = ""
    """What a sentence calls it: `accuracy`; the label without it."""
    bound: Literal["rise", "fall", "either"] | None = None
    """Which changes `--fail-above` can bound: a rise above a number, a fall below one, or either by the sign."""
    least: float | None = None
    """The least value that is possible."""
    signed: bool = False
    """Whether it is a difference, though it is never judged."""

    @property
    def form(self) -> str:
        """The Python format of its values; a difference is shown with its sign."""
        sign = self.signed or (self.null == 0.0 and self.least is None)
        return ("+" if sign else "") + (".1%" if self.unit == SHARE else ".4f")

    def words(self, verdict: Verdict) -> str:
        """A verdict in words."""
        words = {Verdict.HIGHER: self.higher, Verdict.LOWER: self.lower, Verdict.NO_CHANGE: self.same}
        return words.get(verdict, verdict.value)


_drift = partial(Measure, unit=NATS, same=NOT_TOLD)
_level = partial(Measure, unit=NATS, null=None)
_share = partial(Measure, unit=SHARE, null=None)
_score = partial(Measure, unit=NATS, higher="above zero", lower="below zero", same=NOT_TOLD)

# fmt: off
_TABLE = (
    _drift(name="kl", label="KL(base‖tuned)", better="lower", higher="drifted", noun="drift", bound="rise", least=0.0,
           says="How far the tuned model’s probabilities for the next token moved from the base’s: drift, without a "
                "sign.",
           definition="KL(base‖tuned), nats per token"),
    _drift(name="ce_change", label="change of loss",
           better="lower", higher="predicted worse", lower="predicted better", noun="loss", bound="rise",
           says="How much worse, or below 0 better, it predicts this text as it is written: what it forgot or "
                "learned of it.",
           definition="CE(tuned) − CE(base) on the text itself, nats per token"),
    _drift(name="l_f_rise", label="L_f rise",
           better="lower", higher="drifted", lower="nearer to the base", noun="L_f", bound="rise",
           says="How much more surprised it is by what the base would have said than the base itself.",
           definition="L_f(tuned) − L_f(base), L_f the cross-entropy against the base's arg-max token, nats per "
                      "token"),
    _share(name="agreement", label="agreement", better="higher", null=1.0, lower="drifted", same=NOT_TOLD, bound="fall",
           says="How often both models say the same: the next token, or the answer to a question, right or wrong.",
           definition="share of tokens where both rank the same token first, or of questions where both choose the "
                      "same option (Wilson's interval)"),
    _level(name="soft_ce", label="soft CE",
           says="How surprised it is by everything that the base could have said.",
           definition="cross-entropy of the tuned model against the base's whole distribution, nats per token"),
    _level(name="entropy", label="entropy",
           says="How unsure the base itself is.",
           definition="the base's entropy, the least that soft CE can be, nats per token"),
    _share(name="accuracy", label="change of accuracy", better="higher", null=0.0, noun="accuracy", bound="fall",
           says="How many more, or below 0 fewer, questions the tuned model answers right.",
           definition="share of the items that the tuned model has right − that the base has right, with Bonett and "
                      "Price's interval for paired answers; p is McNemar's, exact"),
    _share(name="lost_beyond_chance", label="lost beyond chance", better="lower", least=0.0,
           says="Which part of the questions was lost for another reason than guessing.",
           definition="share of items right→wrong less what independent guesses would change (arXiv 2510.17776)"),
    _share(name="refusals", label="change of refusals",
           null=0.0, higher="refuses more", lower="refuses less", noun="refusals", bound="either",
           says="How many more, or below 0 fewer, of the prompts the tuned model refuses.",
           definition="share refused by the tuned model − by the base, paired; p is McNemar's, exact"),
    _drift(name="refusal_log_odds", label="change of a refusal’s log-odds",
           says="How much likelier, or below 0 less likely, the opening of a refusal became against that of an "
                "answer.",
           definition="log p(likeliest opening of a refusal) − log p(likeliest of an answer), tuned − base, nats"),
    _share(name="broken", label="change of broken answers",
           better="lower", null=0.0, noun="broken answers", bound="rise",
           says="How many more of the answers are empty or repeat one phrase.",
           definition="share of answers that are empty or a loop, tuned − base, paired; p is McNemar's, exact"),
    _share(name="detectors_agree", label="detectors agree",
           says="On how many answers all detectors say the same.",
           definition="share of the prompts, with Wilson's interval"),
    Measure(name="lm_eval", label="change of a metric", unit="", noun="lm-eval",
            says="How a metric of lm-eval changed, mean over the items.",
            definition="tuned − base, paired bootstrap over items; where items are right or wrong p is McNemar's, "
                       "exact"),
    _share(name="class_kl_share", label="of the KL",
           says="A class's part of a text's drift."),
    _share(name="class_token_share", label="of the tokens",
           says="A class's part of a text's tokens."),
    _level(name="class_kl", label="KL",
           says="How far the predictions of one class of tokens moved."),
    _level(name="class_ce_change", label="change of loss", signed=True,
           says="How much worse, or below 0 better, the tokens of one class are predicted."),
    _level(name="layer_kl", label="KL of the sample",
           says="The drift on the sample on which layers are compared."),
    _share(name="layer_moved", label="output moved",
           says="How far a layer's output moved, as a part of its length.",
           definition="‖tuned − base‖ / ‖base‖ of a layer's output, mean over tokens"),
    _level(name="layer_patched", label="output put back",
           says="The KL left when a layer's output is the base's."),
    _level(name="layer_restored", label="layer put back",
           says="The KL left when a layer is the base's."),
    _level(name="layer_repaired", label="repaired by that",
           says="How much of the KL putting a layer back repairs."),
    _level(name="rest_restored", label="rest put back",
           says="The KL left when all but the layers (embeddings, final norm, head) is the base's."),
    _level(name="score", label="score",
           says="How well a checkpoint does: −CE of a text, or accuracy on a task."),
    _score(name="score_change", label="change of score", better="higher",
           says="How much better, or below 0 worse, a checkpoint does than the base.",
           definition="score − the base's, paired by document or item"),
    _level(name="acc", label="ACC, the mean score at the end",
           says="How well the last checkpoint does on what the stages trained.",
           definition="mean over the stages' columns of the score after the last stage"),
    _score(name="bwt", label="BWT, what later stages changed", better="higher", noun="backward transfer",
           says="What later stages added to, or below 0 took away from, what earlier ones taught.",
           definition="mean over all stages but the last: score on its column after the last stage − right after it"),
    _score(name="fwt", label="FWT, what earlier stages gave in advance", better="higher", noun="forward transfer",
           says="What a stage's column had gained before the stage.",
           definition="mean over all stages but the first: score on its column right before it − the base's"),
    _score(name="stage_forgetting", label="forgotten since the best stage", better="lower", noun="forgetting",
           says="How far a column's score ends below its best after any earlier stage.",
           definition="for all stages but the last: the best score on its column after any earlier stage (the base "
                      "does not count) − after the last; the interval holds for the best of them all (Bonferroni)"),
    _score(name="fall", label="fall since the base", better="lower", noun="fall of other knowledge",
           says="Of what no stage trained: how far the score ends below the base's.",
           definition="the base's score − after the last stage"),
    _drift(name="gap_before", label="gap before", better="lower", higher="predicted worse", same="nothing to recover",
           says="How much worse the tuned model predicts the held-out half.",
           definition="CE(tuned) − CE(base), nats per token"),
    _level(name="gap_after", label="gap after", signed=True,
           says="The same after both were tuned briefly on the other half.",
           definition="CE(tuned) − CE(base), nats per token"),
    _share(name="recovered_share", label="recovered share",
           null=0.5, higher="mostly spurious", lower="mostly lost", same="undecided",
           noun="what brief tuning brings back",
           says="Which part of the gap brief tuning closes: what closes was not lost.",
           definition="1 − gap after / gap before; held against one half"),
)
# fmt: on
MEASURES: dict[str, Measure] = {measure.name: measure for measure in _TABLE}


def register(*measures: Measure) -> None:
    """Add lines to the table.

    Raises:
        ValueError: another measure has the name.
    """
    for measure in measures:
        if MEASURES.setdefault(measure.name, measure) != measure:
            raise ValueError(f"the measure {measure.name} stands in the table already")


def measure_of(name: str) -> Measure:
    """The line of a measure; one that a report of another version names gets its name for a label."""
    return MEASURES.get(name) or Measure(name=name, label=name.replace("_", " "), unit="", says="")
