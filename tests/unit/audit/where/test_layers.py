"""What putting parts of the base back leaves of the drift, against models put together by hand."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import kl_div
from transformers import BloomConfig, BloomForCausalLM, GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

from keeptune.audit import meter
from keeptune.audit.where import layers as module
from keeptune.audit.where.layers import LayerProfile, decoder_layers, layer_profile, swapped
from tests.helpers.models import pack_head

LAYERS = 4


def llama(seed: int, layers: int = LAYERS, width: int = 32) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=64,
        hidden_size=width,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.15,
    )
    return LlamaForCausalLM(config).eval()


def bloom(seed: int) -> BloomForCausalLM:
    """Its layers hand on a tuple."""
    torch.manual_seed(seed)
    return BloomForCausalLM(
        BloomConfig(vocab_size=64, hidden_size=32, n_layer=LAYERS, n_head=4, initializer_range=0.15)
    ).eval()


def neox(seed: int) -> GPTNeoXForCausalLM:
    torch.manual_seed(seed)
    config = GPTNeoXConfig(
        vocab_size=64,
        hidden_size=32,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        intermediate_size=48,
        initializer_range=0.15,
    )
    return GPTNeoXForCausalLM(config).eval()


def make_rows(documents: int = 3) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(5)
    rows = []
    for document in range(documents):
        ids = torch.randint(0, 64, (20 + 3 * document,), generator=generator).tolist()
        labels = [-100] * (1 + document) + ids[1 + document :]
        rows.append({"input_ids": ids, "labels": labels, "document": f"d{document}"})
    return rows


@torch.no_grad()
def kl_of(base: nn.Module, tuned: nn.Module) -> float:
    total, tokens = 0.0, 0
    for row in make_rows():
        p, q = (m(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1].double() for m in (base, tuned))
        keep = torch.tensor(row["labels"])[1:] != -100
        total += float(kl_div(q[keep].log_softmax(-1), p[keep].log_softmax(-1), reduction="sum", log_target=True))
        tokens += int(keep.sum())
    return total / tokens


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def hybrid(base: nn.Module, tuned: nn.Module, from_base: set[int], *, rest_from_base: bool) -> nn.Module:
    """A copy of one model in which these layers have the base's weights and the others the tuned model's."""
    made = copy.deepcopy(base if rest_from_base else tuned)
    for index, layer in enumerate(decoder_layers(made)):
        source = base if index in from_base else tuned
        layer.load_state_dict(decoder_layers(source)[index].state_dict())
    return made


@pytest.mark.parametrize("make", [llama, bloom, neox])
def test_every_number_equals_that_of_a_model_put_together_by_hand(make: Any) -> None:
    base, tuned = make(0).double(), make(1).double()
    profile = layer_profile(base, tuned, make_rows(), "mine")
    assert (profile.text, profile.windows) == ("mine", 3)
    assert profile.tokens == sum(label != -100 for row in make_rows() for label in row["labels"][1:])
    whole = kl_of(base, tuned)
    assert profile.kl.value == pytest.approx(whole, rel=1e-4)
    assert [entry.layer for entry in profile.layers] == list(range(LAYERS))
    for index, entry in enumerate(profile.layers):
        restored = kl_of(base, hybrid(base, tuned, {index}, rest_from_base=False))
        assert entry.restored.value == pytest.approx(restored, rel=1e-4)
        assert entry.repaired.value == pytest.approx(whole - restored, rel=1e-3, abs=1e-5)
        # The base up to here, then the tuned model with its own final norm and head.
        patched = hybrid(base, tuned, set(range(index + 1)), rest_from_base=True)
        final_norm(patched).load_state_dict(final_norm(tuned).state_dict())
        patched.set_output_embeddings(copy.deepcopy(tuned.get_output_embeddings()))
        assert entry.patched.value == pytest.approx(kl_of(base, patched), rel=1e-4)
    rest = kl_of(base, hybrid(base, tuned, set(), rest_from_base=True))
    assert profile.rest_restored.value == pytest.approx(rest, rel=1e-4)


@pytest.mark.parametrize("packed", [(0,), (1,), (0, 1)], ids=["base", "tuned", "both"])
def test_a_quantized_output_layer_hides_no_layers(packed: tuple[int, ...]) -> None:
    pair = neox(0).double(), neox(1).double()
    for place in packed:
        pack_head(pair[place])
    profile = layer_profile(*pair, make_rows(), "mine")
    assert profile.unavailable == ""
    assert profile.kl.value == pytest.approx(kl_of(*pair), rel=1e-4)
    for index, entry in enumerate(profile.layers):
        with swapped(decoder_layers(pair[1]), {index: decoder_layers(pair[0])[index]}):
            assert entry.restored.value == pytest.approx(kl_of(*pair), rel=1e-4)


def final_norm(model: nn.Module) -> nn.Module:
    decoder = model.get_decoder()
    return next(getattr(decoder, name) for name in ("norm", "ln_f", "final_layer_norm") if hasattr(decoder, name))


@torch.no_grad()
def test_how_far_the_outputs_moved() -> None:
    base, tuned = llama(0).double(), llama(1).double()
    profile = layer_profile(base, tuned, make_rows(), "mine")
    # The last of transformers' hidden states is past the final norm.
    for index in range(LAYERS - 1):
        ratios = []
        for row in make_rows():
            inputs = torch.tensor([row["input_ids"]])
            b, t = (
                model(inputs, output_hidden_states=True).hidden_states[index + 1][0, :-1] for model in (base, tuned)
            )
            keep = torch.tensor(row["labels"])[1:] != -100
            ratios += ((t - b).norm(dim=-1) / b.norm(dim=-1))[keep].tolist()
        assert profile.layers[index].moved.value == pytest.approx(sum(ratios) / len(ratios), rel=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("seed", [0, 1])
def test_a_token_whose_embedding_is_zero_has_a_number(seed: int) -> None:
    base, tuned = llama(0).double(), llama(seed).double()
    rows = make_rows()
    for model in (base, tuned):
        for row in rows:
            model.get_input_embeddings().weight[row["input_ids"][0]] = 0.0  # as of the padding token that starts rows
    for row in rows:
        row["labels"] = list(row["input_ids"])  # the start is read too
    moved = [layer.moved.value for layer in layer_profile(base, tuned, rows, "mine").layers]
    assert all(0.0 <= value < float("inf") for value in moved)
    assert (max(moved) == 0.0) == (seed == 0)


def test_one_layer_that_differs_is_found_exactly() -> None:
    base, tuned = llama(0), llama(0)
    decoder_layers(tuned)[2].load_state_dict(decoder_layers(llama(1))[2].state_dict())
    profile = layer_profile(base, tuned, make_rows(), "mine")
    whole = profile.kl
    assert whole.value > 0.01
    assert [entry.moved.value > 0 for entry in profile.layers] == [False, False, True, True]
    for entry in profile.layers:
        assert entry.restored == (whole if entry.layer != 2 else replace(whole, value=0.0, low=0.0, high=0.0))
        # Before the layer a patch changes nothing, after it nothing is left.
        expected = whole.value if entry.layer < 2 else 0.0
        assert entry.patched.value == expected
    assert profile.rest_restored == whole


def test_a_final_norm_that_differs_is_the_rest() -> None:
    base, tuned = llama(0), llama(0)
    with torch.no_grad():
        tuned.model.norm.weight.mul_(1.5)
    profile = layer_profile(base, tuned, make_rows(), "mine")
    assert profile.rest_restored.value == 0.0
    assert all(entry.restored == profile.kl for entry in profile.layers)
    assert all(entry.patched == profile.kl for entry in profile.layers)


def test_both_models_are_left_as_they_were_even_by_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    models = [llama(0), llama(1)]
    before = [(list(decoder_layers(model)), weights(model)) for model in models]
    passes = 0

    def failing(*arguments: Any) -> torch.Tensor:
        nonlocal passes
        passes += 1
        if passes == stop:
            raise RuntimeError("no memory")
        return meter.token_drift(*arguments)

    monkeypatch.setattr(module, "token_drift", failing)
    for stop in (1, 2, 3, 2 * LAYERS + 2, None):
        passes = 0
        if stop is None:
            layer_profile(*models, make_rows(), "mine")
        else:
            with pytest.raises(RuntimeError, match="no memory"):
                layer_profile(*models, make_rows(), "mine")
        for model, (own, kept) in zip(models, before, strict=True):
            assert all(now is then for now, then in zip(decoder_layers(model), own, strict=True))
            assert not any(part._forward_hooks for part in model.modules())
            assert all(torch.equal(tensor, kept[name]) for name, tensor in model.state_dict().items())


def test_layers_are_put_back_in_their_places() -> None:
    model = llama(0)
    own, others = list(decoder_layers(model)), list(decoder_layers(llama(1)))
    with swapped(decoder_layers(model), {3: others[3], 1: others[1]}):
        inside = list(decoder_layers(model))
    assert all(now is then for now, then in zip(inside, [own[0], others[1], own[2], others[3]], strict=True))
    assert all(now is then for now, then in zip(decoder_layers(model), own, strict=True))


def test_layers_are_not_mistaken_for_what_they_contain() -> None:
    model = llama(0)
    for layer in model.model.layers:
        layer.experts = nn.ModuleList(nn.Linear(1, 1) for _ in range(LAYERS))
    assert decoder_layers(model) is model.model.layers


def test_models_that_cannot_be_compared_say_why() -> None:
    base = llama(0)
    for other in (llama(1, layers=3), llama(1, width=16)):
        profile = layer_profile(base, other, make_rows(), "mine")
        assert profile == LayerProfile(text="mine", unavailable="the layers of the two models differ in shape")
    odd = llama(1)
    odd.config.num_hidden_layers = 7
    assert "as many layers" in layer_profile(base, odd, make_rows(), "mine").unavailable
    late = [{"input_ids": [1] * 200, "labels": [-100] * 199 + [1], "document": "d"}]
    assert "no window" in layer_profile(base, llama(1), late, "mine").unavailable


def test_long_windows_are_cut_and_documents_are_spread() -> None:
    rows = [{"input_ids": [3] * 200, "labels": [3] * 200, "document": f"d{number}"} for number in range(30)]
    profile = layer_profile(llama(0, layers=1), llama(1, layers=1), [*rows, *rows], "mine")
    assert (profile.windows, profile.tokens) == (12, 12 * 95)
