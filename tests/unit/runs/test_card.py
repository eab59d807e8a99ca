"""The model card: it names the text that drift was read on."""

from __future__ import annotations

from keeptune.runs.card import card
from keeptune.runs.settings import TuneSettings

ROW = {"P": 10, "step": 5, "L_ft": 2.0, "L_ft_on": "held-out", "L_f": 1.5, "L_f_base": 1.0, "KL": 0.5, "versions": {}}


def test_drift_is_said_of_the_text_it_was_read_on() -> None:
    own = card(TuneSettings(model="base", data="text", out="out"), ROW, ROW)
    assert "KL(base‖tuned) on the base's own text | 0 | 0.5000 |" in own
    assert "32 sampled rows that training never saw" in own
    other = card(TuneSettings(model="base", data="text", out="out", drift_text="old.txt"), ROW, ROW)
    assert "KL(base‖tuned) on old.txt | 0 | 0.5000 |" in other
    assert "own text" not in other
