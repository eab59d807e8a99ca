"""Predictions on the terminal, with and without intervals."""

from __future__ import annotations

import numpy as np
import pytest

from keeptune.laws.describe import print_bands
from keeptune.laws.robust import Band


def test_bands_are_printed_with_both_intervals_or_the_reason_why_there_are_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    value, low, high, reading_low, reading_high = (np.array(end) for end in (0.5, 0.4, 0.61, 0.3, 0.7))
    print_bands({"L_f": Band(value, low, high, reading_low, reading_high)}, 0.9)
    assert capsys.readouterr().out == (
        "L_f   0.5000 nats per token   law [0.4000, 0.6100]   a new reading [0.3000, 0.7000]   (90% intervals)\n"
    )
    print_bands({"L_ft": Band(value)}, 0.9)
    assert "no interval" in capsys.readouterr().out
    print_bands({"L_ft": Band(value)})
    assert capsys.readouterr().out == "L_ft  0.5000 nats per token\n"
