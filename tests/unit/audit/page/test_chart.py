"""Charts: their data can stand in a script element, and names from outside are text in them."""

from __future__ import annotations

import json

import plotly.graph_objects as go

from keeptune.audit.page.chart import chart_json, figure, label


def test_data_in_a_script_element_cannot_end_it() -> None:
    hostile = "</script><script>alert(1)</script><!--"
    text = chart_json(figure([go.Scatter(x=[0], y=[1], name=hostile)], "x", "y"))
    assert "<" not in text
    assert json.loads(text)["data"][0]["name"] == hostile


def test_a_label_is_no_markup_and_short() -> None:
    assert label("<b>a&b</b>") == "&lt;b&gt;a&amp;b&lt;/b&gt;"
    assert label("a" * 24) == "a" * 24
    assert label("abcdefghijklmnopqrstuvwxyz", limit=10) == "abcde…wxyz"
