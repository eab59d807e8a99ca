"""Models and data that nobody can use: each made in a folder that holds a copy of a sound model."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Made = Callable[[Path, Path], Path | str]


def _edit(file: Path, **changes: Any) -> None:
    content = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def _config(**changes: Any) -> Made:
    def make(_: Path, model: Path) -> Path:
        _edit(model / "config.json", **changes)
        return model

    return make


def _file(name: str, content: bytes | str) -> Made:
    def make(folder: Path, _: Path) -> Path:
        path = folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return make


def _rewritten(name: str, change: Callable[[bytes], bytes]) -> Made:
    def make(_: Path, model: Path) -> Path:
        (model / name).write_bytes(change((model / name).read_bytes()))
        return model

    return make


def _without(*names: str) -> Made:
    def make(_: Path, model: Path) -> Path:
        for name in names:
            (model / name).unlink()
        return model

    return make


def _weights(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Made:
    def make(_: Path, model: Path) -> Path:
        file = model / "model.safetensors"
        save_file(change({name: tensor.clone() for name, tensor in load_file(file).items()}), file, {"format": "pt"})
        return model

    return make


def _pickled(_: Path, model: Path) -> Path:
    torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    return model


def _adapter(folder: Path, model: Path) -> Path:
    adapter = folder / "adapter"
    adapter.mkdir()
    config = {
        "peft_type": "LORA",
        "base_model_name_or_path": str(folder / "gone"),
        "r": 2,
        "target_modules": ["q_proj"],
    }
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    return adapter


def _lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _folder(files: Mapping[str, bytes]) -> Made:
    def make(folder: Path, _: Path) -> Path:
        path = folder / "data"
        path.mkdir()
        for name, content in files.items():
            (path / name).write_bytes(content)
        return path

    return make


def _zip(folder: Path, _: Path) -> Path:
    with zipfile.ZipFile(folder / "rows.zip", "w") as archive:
        archive.writestr("rows.jsonl", _lines({"text": "a"}))
    return folder / "rows.zip"


MODELS: dict[str, Made] = {
    "no such folder": lambda folder, model: folder / "nowhere",
    "an empty folder": lambda folder, model: (folder / "data").mkdir() or folder / "data",
    "an empty name": lambda folder, model: "",
    "a name that leaves the hub": lambda folder, model: "../../etc/passwd",
    "a text file": _file("model.txt", "no model"),
    "a GGUF file of rubbish": _file("model.gguf", b"GGUF" + bytes(range(200))),
    "an empty GGUF file": _file("model.gguf", b""),
    "config.json cut off": _rewritten("config.json", lambda content: content[: len(content) // 2]),
    "config.json is a list": _rewritten("config.json", lambda content: b"[]"),
    "an unknown architecture": _config(model_type="nosuch", architectures=["NoSuchForCausalLM"]),
    "no model_type": _config(model_type=None),
    "a text encoder": _config(model_type="bert", architectures=["BertModel"]),
    "more layers than weights": _config(num_hidden_layers=5),
    "a width that weights do not have": _config(hidden_size=48),
    "no weights": _without("model.safetensors"),
    "weights cut off": _rewritten("model.safetensors", lambda content: content[: len(content) // 2]),
    "weights of zero bytes": _rewritten("model.safetensors", lambda content: b""),
    "a header that lies": _rewritten("model.safetensors", lambda content: b"\xff" * 8 + content[8:]),
    "a tensor is missing": _weights(lambda tensors: dict(list(tensors.items())[1:])),
    "weights as a pickle": _pickled,
    "no tokenizer": _without("tokenizer.json", "tokenizer_config.json"),
    "tokenizer.json cut off": _rewritten("tokenizer.json", lambda content: content[: len(content) // 2]),
    "an adapter without its base": _adapter,
}
DATA: dict[str, Made] = {
    "no such file": lambda folder, model: folder / "nowhere.jsonl",
    "a glob without a match": lambda folder, model: f"{folder}/*.nosuch",
    "an empty file": _file("rows.jsonl", ""),
    "an empty folder": _folder({}),
    "no JSON": _file("rows.jsonl", '{"text": "a"\n{"text"'),
    "a list of numbers": _file("rows.json", "[1, 2, 3]"),
    "a column of another name": _file("rows.jsonl", _lines({"body": "a"}, {"body": "b"})),
    "texts that are empty": _file("rows.jsonl", _lines(*[{"text": ""}] * 9)),
    "texts that are numbers": _file("rows.jsonl", _lines(*[{"text": 5}] * 9)),
    "texts that are null": _file("rows.jsonl", _lines(*[{"text": None}] * 9)),
    "one document": _file("rows.jsonl", _lines({"text": "only one"})),
    "no UTF-8": _file("rows.jsonl", b'{"text": "\xff\xfe\xfa"}\n' * 9),
    "Parquet of rubbish": _file("rows.parquet", b"PAR1" + bytes(range(64)) + b"PAR1"),
    "gzip cut off": _file("rows.jsonl.gz", gzip.compress(_lines(*[{"text": "a" * 99}] * 9).encode())[:-12]),
    "a zip file": _zip,
    "a pickle": _file("rows.pkl", b"\x80\x04N."),
    "pictures": _folder({"a.png": b"\x89PNG", "b.jpg": b"\xff\xd8"}),
    "messages without a role": _file("rows.jsonl", _lines(*[{"messages": [{"content": "a"}]}] * 9)),
    "messages of an unknown role": _file("rows.jsonl", _lines(*[{"messages": [{"role": "x", "content": "a"}]}] * 9)),
    "messages without an answer": _file("rows.jsonl", _lines(*[{"messages": [{"role": "user", "content": "a"}]}] * 9)),
    "messages that are text": _file("rows.jsonl", _lines(*[{"messages": "hello"}] * 9)),
    "a prompt without a completion": _file("rows.jsonl", _lines(*[{"prompt": "a"}] * 9)),
    "a completion that is null": _file("rows.jsonl", _lines(*[{"prompt": "a", "completion": None}] * 9)),
    "prompts longer than a row": _file("rows.jsonl", _lines(*[{"prompt": "a" * 9999, "completion": "b"}] * 9)),
    "CSV without the column": _file("rows.csv", "a,b\n1,2\n"),
}
