"""Models and data sets by hub id, from a hub on the loopback interface, in a process that is allowed online."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from tests.conftest import make_model, make_tokenizer

COMMIT = "a" * 40


class Hub(ThreadingHTTPServer):
    """Serves the folders below `root`, `models/org/name` and `datasets/org/name`, by the hub's protocol."""

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.root = root
        self.unknown: list[str] = []


class HubHandler(BaseHTTPRequestHandler):
    server: Hub

    def do_GET(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts[0] == "api" and parts[1] in ("models", "datasets"):
            self._api(self.server.root / parts[1] / "/".join(parts[2:4]), parts[4:])
        elif "resolve" in parts:
            at = parts.index("resolve")
            kind = [] if parts[0] == "datasets" else ["models"]
            self._file(self.server.root.joinpath(*kind, *parts[:at]), "/".join(parts[at + 2 :]))
        else:
            self._unknown()

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        repository = self.server.root / parts[1] / "/".join(parts[2:4])
        if parts[4:5] != ["paths-info"]:
            self._unknown()
            return
        wanted = json.loads(body)["paths"]
        self._json([entry for entry in self._entries(repository) if entry["path"] in wanted])

    def _entries(self, repository: Path) -> list[dict[str, object]]:
        files = sorted(path for path in repository.rglob("*") if path.is_file())
        return [
            {
                "type": "file",
                "path": path.relative_to(repository).as_posix(),
                "size": path.stat().st_size,
                "oid": hashlib.sha256(path.read_bytes()).hexdigest()[:40],
            }
            for path in files
        ]

    def _api(self, repository: Path, rest: list[str]) -> None:
        if not repository.is_dir():
            self._error("RepoNotFound")
        elif not rest or rest[0] == "revision":
            siblings = [{"rfilename": entry["path"]} for entry in self._entries(repository)]
            name = "/".join(repository.parts[-2:])
            self._json({"id": name, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []})
        elif rest[0] == "tree" and len(rest) == 2:
            self._json(self._entries(repository))
        else:
            self._error("EntryNotFound")

    def _file(self, repository: Path, name: str) -> None:
        if not repository.is_dir():
            self._error("RepoNotFound")
        elif not (repository / name).is_file():
            self._error("EntryNotFound")
        else:
            self._send(200, (repository / name).read_bytes())

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode())

    def _error(self, code: str) -> None:
        self._send(404, b"{}", {"X-Error-Code": code})

    def _unknown(self) -> None:
        self.server.unknown.append(f"{self.command} {self.path}")
        self._send(501, b"{}")

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        etag = hashlib.sha256(body).hexdigest()
        common = {"Content-Length": str(len(body)), "ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}
        for key, value in {**common, **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """The test's output stays its own."""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    server = Hub(tmp_path / "hub")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


SCRIPT = textwrap.dedent(
    """
    import json, sys
    import torch
    from keeptune.errors import SourceError
    from keeptune.sources import load_documents, load_model, load_tokenizer

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

    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment |= {
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_address[1]}",
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, timeout=100, check=False
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
    assert not (tmp_path / "ran").exists()
    assert hub.unknown == []
