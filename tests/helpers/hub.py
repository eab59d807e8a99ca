"""A hub on the loopback interface, which serves folders of a test by the real one's protocol."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

COMMIT = "a" * 40


class Hub(ThreadingHTTPServer):
    """Serves the folders below `root`, `models/org/name` and `datasets/org/name`, by the hub's protocol."""

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.root = root
        self.unknown: list[str] = []
        self.cards: list[str] = []


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
        if parts[1:] == ["repos", "create"]:
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            (self.server.root / "models" / name).mkdir(parents=True, exist_ok=True)
            self._json({"url": f"http://{self.headers['Host']}/{name}"})
            return
        if parts[1:] == ["validate-yaml"]:
            self.server.cards.append(json.loads(body)["content"])
            self._json({"errors": [], "warnings": []})
            return
        repository = self.server.root / parts[1] / "/".join(parts[2:4])
        if parts[4:5] == ["paths-info"]:
            wanted = json.loads(body)["paths"]
            self._json([entry for entry in self._entries(repository) if entry["path"] in wanted])
        elif parts[4:5] == ["preupload"]:
            modes = [{"path": file["path"], "uploadMode": "regular"} for file in json.loads(body)["files"]]
            self._json({"files": [{**mode, "shouldIgnore": False, "oid": None} for mode in modes]})
        elif parts[4:5] == ["commit"]:
            self._commit(repository, [json.loads(line) for line in body.splitlines()])
        else:
            self._unknown()

    def _commit(self, repository: Path, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            if line["key"] == "file":
                path = repository / line["value"]["path"]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(base64.b64decode(line["value"]["content"]))
        address = f"http://{self.headers['Host']}/{'/'.join(repository.parts[-2:])}/commit/{COMMIT}"
        self._json({"success": True, "commitOid": COMMIT, "commitUrl": address, "hookOutput": ""})

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


def online(hub: Hub, folder: Path) -> dict[str, str]:
    """The environment of a process for which this hub is the hub."""
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return environment | {
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_address[1]}",
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
