"""The least work that benchmarks/limits.py counts: by hand on small sizes, and the table in docs/performance.md."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))

from limits import H100, Part, Shape, adamw, forward_and_backward, loss_on_a_card, paper_table, sampling  # noqa: E402

from tests.helpers.models import make_model  # noqa: E402


def test_a_part_takes_the_longer_of_computing_and_moving() -> None:
    assert Part("a", 100.0, 10.0).seconds(10.0, 10.0) == 10
    assert Part("a", 10.0, 100.0).seconds(10.0, 10.0) == 10


def test_the_shape_of_a_model_has_all_its_weights() -> None:
    model = make_model()
    shape = Shape.of(model)
    rest = model.model.norm.weight.numel()
    assert shape.body + shape.head + rest == sum(p.numel() for p in model.parameters())
    assert (shape.query_width, shape.key_width, shape.layers) == (32, 16, 2)


def test_operations_are_six_a_weight_and_token_in_training_and_two_in_sampling() -> None:
    shape = Shape(body=1000, vocabulary=50, width=8, layers=1, query_width=8, key_width=4)
    layers, attention, head = forward_and_backward(shape, 2, 3)
    assert layers.operations == 6 * 1000 * 6
    assert head.operations == 6 * 400 * 6
    assert attention.operations == 3 * 2 * (2 * 2 * 3 * 3 * 8) / 2
    products, cache, _ = sampling(shape, 2, 3)
    assert products.operations == 2 * 1400 * 6
    assert products.bytes == 2 * 1400 * 3
    assert cache.bytes == 2 * (2 * 4 * 2) * 3 * 3 / 2
    assert adamw(shape).bytes == 32 * 1400


@pytest.mark.parametrize("chunk", [64, 384, 1536, 8192])
def test_no_form_of_the_loss_is_below_the_floor_and_the_kernel_is_below_the_compiled(chunk: int) -> None:
    forms = loss_on_a_card(8192, 4096, 131_072, chunk)
    moved = {form: sum(part.bytes for part in parts) for form, parts in forms.items()}
    assert moved["floor"] < moved["kernel"] < moved["compiled"]
    assert {sum(part.operations for part in parts) for parts in forms.values()} == {8 * 8192 * 4096 * 131_072}
    time = {f: sum(part.seconds(H100.operations, H100.bandwidth) for part in parts) for f, parts in forms.items()}
    assert 0.0355 < time["floor"] <= time["kernel"] <= time["compiled"]


def test_the_page_has_the_table_of_the_script() -> None:
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    table = page.partition("<!-- paper:begin -->\n")[2].partition("<!-- paper:end -->")[0]
    assert table.splitlines() == paper_table()
