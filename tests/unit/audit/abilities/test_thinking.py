"""Reasoning spans: there, closed, and followed by an answer."""

from __future__ import annotations

import pytest

from keeptune.audit.abilities.thinking import MARKS, answered, items, opened, thinks, thought
from tests.helpers.chats import published
from tests.helpers.models import CHAT_TEMPLATE


@pytest.mark.parametrize(("opening", "closing"), MARKS)
def test_spans(opening: str, closing: str) -> None:
    assert thought(f"{opening}\n2 and 3 are 5.\n{closing}\n\nIt is 5.")
    assert thought(f"\n{opening}x{closing}5")
    for text in (
        f"{opening}2 and 3 are 5.",
        f"{opening}{closing}5",
        f"{opening}\n \n{closing}5",
        f"{opening}2 and 3 are 5.{closing}",
        f"{opening}2 and 3{closing} \n",
        f"Well. {opening}2 and 3{closing}5",
        f"2 and 3{closing}5",
        f"{opening}{opening}2 and 3{closing}5",
        f"{opening}2 and 3{closing}5{closing}5",
        "It is 5.",
        "",
        opening * 10_000,
    ):
        assert not thought(text), text
    assert answered(f"{opening}2{closing}\n5") == "5" and answered(f"{opening}2") == "" and answered("5") == "5"
    assert opened(f"<user>Hi<assistant>{opening}\n") == f"{opening}\n"
    assert opened(f"<assistant>{opening}\n\n{closing}\n\n") == "" and opened("<assistant>") == ""


def test_templates_that_think() -> None:
    found = published()
    assert all(thinks(found[name]) for name in ("qwen3", "deepseek_r1_distill", "gptoss", "qwen3_6", "nemotron_3_nano"))
    assert not any(thinks(found[name]) for name in ("qwen2_5", "llama3_1", "gemma3", "phi3", "cohere"))
    assert not thinks(CHAT_TEMPLATE)


def test_items() -> None:
    made = items(1)
    assert len(made) == 24 and made == items(1) != items(2)
