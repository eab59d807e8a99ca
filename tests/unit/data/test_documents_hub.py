"""Models and data sets by hub id, from a hub on the loopback interface, in a process that is allowed online."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from tests.helpers.hub import Hub, hub, online
from tests.helpers.models import make_model, make_tokenizer

__all__ = ["hub"]

SCRIPT = textwrap.dedent(
    """
    import json, sys
    import torch
    from keeptune.errors import SourceError
    from keeptune.data.documents import hub_rows
    from keeptune.data.documents import load_documents
    from keeptune.models.loading import load_model, load_tokenizer

    def outcome(call, *arguments):
        try:
            return call(*arguments)
        except SourceError as error:
            return f"{type(error).__name__}: {error.what}"

    with torch.no_grad():
        logits = load_model("org/whole")(torch.tensor([[1, 2, 3]])).logits
    print(json.dumps({
        "logits": logits.tolist(),
        "adapted": type(load_model("org/adapter")).__name__,
        "adapted tokenizer": len(load_tokenizer("org/adapter")),
        "tokenizer": len(load_tokenizer("org/whole")),
        "pickled": outcome(load_model, "org/pickled"),
        "gone": outcome(load_model, "org/gone"),
        "train": outcome(lambda: list(load_documents("org/texts")["text"])),
        "test": outcome(lambda: load_documents("org/texts:test").to_list()),
        "bad split": outcome(load_documents, "org/texts:other"),
        "scripted": outcome(load_documents, "org/scripted"),
        "gone set": outcome(load_documents, "org/gone"),
        "streamed": outcome(lambda: list(hub_rows("org/texts", "train", files="test.jsonl", stream=True))),
        "gone stream": outcome(lambda: list(hub_rows("org/gone", "train", files="*.jsonl", stream=True))),
    }))
    """
)


def test_hub_ids_are_fetched_checked_and_refused(hub: Hub, tmp_path: Path) -> None:
    whole, pickled = hub.root / "models/org/whole", hub.root / "models/org/pickled"
    for folder in (whole, pickled):
        make_model().save_pretrained(folder)
    make_tokenizer().save_pretrained(whole)
    torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    adapted = get_peft_model(make_model(), LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    adapted.peft_config["default"].base_model_name_or_path = "org/whole"
    adapted.save_pretrained(hub.root / "models/org/adapter")
    texts, scripted = hub.root / "datasets/org/texts", hub.root / "datasets/org/scripted"
    texts.mkdir(parents=True)
    (texts / "train.jsonl").write_text('{"text": "one"}\n{"text": "two"}\n')
    (texts / "test.jsonl").write_text('{"text": "three"}\n')
    scripted.mkdir()
    (scripted / "scripted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")

    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=online(hub, tmp_path),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    with torch.no_grad():
        expected = make_model()(torch.tensor([[1, 2, 3]])).logits
    torch.testing.assert_close(torch.tensor(got["logits"]), expected)
    assert got["tokenizer"] == got["adapted tokenizer"] == 259
    assert got["adapted"] == "LlamaForCausalLM"
    assert "404" not in done.stderr
    assert got["pickled"].startswith("SourceError: org/pickled has only pickled weights")
    assert got["gone"].startswith("SourceNotFound: no model org/gone on the hub")
    assert got["train"] == ["one", "two"]
    assert got["test"] == [{"text": "three", "document": "org/texts:1"}]
    assert got["bad split"].startswith("SourceError: cannot load split other of the hub data set org/texts")
    assert got["scripted"].startswith("SourceError: cannot load split train of the hub data set org/scripted")
    assert got["gone set"].startswith("SourceNotFound: cannot load split train of the hub data set org/gone")
    assert got["streamed"] == [["row 1", {"text": "three"}]]
    assert got["gone stream"].startswith("SourceNotFound: cannot load split train of the hub data set org/gone")
    assert not (tmp_path / "ran").exists()
    assert hub.unknown == []
