"""What intervals look like."""

from __future__ import annotations

from keeptune.stats import evenly_spaced, format_ends, format_interval


def test_intervals_are_written_alike() -> None:
    interval = {"value": 0.03149, "low": 0.027, "high": 0.036, "documents": 12}
    assert format_interval(interval) == "0.0315 [0.0270, 0.0360]"
    assert format_interval(interval, ".1f", ends=".0f", scale=100, separator="\n") == "3.1\n[3, 4]"
    assert format_interval({**interval, "low": None, "high": None}, ".2f") == "0.03"
    assert (
        format_interval(interval, ".2%", number=lambda value, form: f"<{value:{form}}>") == "<3.15%> [<2.70%>, <3.60%>]"
    )
    assert format_ends(-1.0, 2.0, "+.1f") == "[-1.0, +2.0]"
    assert format_ends(None, None) == ""


def test_places_are_spread_over_the_whole() -> None:
    assert evenly_spaced(10, 4) == [0, 2, 5, 7]
    assert evenly_spaced(3, 8) == [0, 1, 2]
    assert evenly_spaced(0, 5) == []
