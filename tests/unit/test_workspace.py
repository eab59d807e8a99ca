"""A folder is claimed once; its steps are computed once, again if an input or a file changed, never half written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keeptune.errors import OutputExists, SourceError, StorageError
from keeptune.workspace import Steps, Workspace, alone

ANSWER = {"numbers": [1, 2.5, None], "text": "“done” – 🌟"}


def counting(result: Any = ANSWER) -> tuple[Callable[[], Any], list[int]]:
    calls: list[int] = []

    def compute() -> Any:
        calls.append(1)
        return result

    return compute, calls


def workspace(folder: Path) -> Workspace:
    return Workspace(folder=folder, marker="demo.json", kind="demo")


def test_a_folder_is_claimed_once_and_taken_again_by_the_same_settings(tmp_path: Path) -> None:
    out, settings = workspace(tmp_path / "out"), {"steps": 3, "sizes": (1, 2)}
    assert not out.check(settings)
    assert not out.folder.exists(), "a check changes nothing"
    out.claim(settings)
    kept = json.loads((out.folder / "demo.json").read_text())
    assert kept["settings"] == {"steps": 3, "sizes": [1, 2]}
    assert kept["versions"]["keeptune"]
    (out.folder / "result.json").write_text("{}")
    out.claim(settings)
    assert out.check(settings)
    assert out.claimed
    assert out.changed({"steps": 4, "sizes": [1, 2], "more": None, "other": 1}) == ["steps", "other"]
    with pytest.raises(OutputExists, match=r"a demo with other settings \(steps\)") as caught:
        out.claim({"steps": 4})
    assert "--out" in caught.value.fix


def test_settings_that_an_earlier_version_wrote_alone_are_read(tmp_path: Path) -> None:
    (tmp_path / "demo.json").write_text('{"steps": 3}')
    assert workspace(tmp_path).check({"steps": 3})
    assert workspace(tmp_path).changed({"steps": 4}) == ["steps"]


def test_what_is_not_ours_is_refused_and_kept(tmp_path: Path) -> None:
    thesis = tmp_path / "thesis.tex"
    thesis.write_text("years of work")
    for attempt in (
        lambda: workspace(tmp_path).claimed,
        lambda: workspace(tmp_path).claim({}),
        lambda: workspace(tmp_path).clear(),
    ):
        with pytest.raises(OutputExists, match="is not empty and holds no demo"):
            attempt()
    with pytest.raises(OutputExists, match="is a file"):
        workspace(thesis).claim({})
    assert thesis.read_text() == "years of work"


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"settings": 3}', "3"])
def test_a_damaged_marker_is_refused_with_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / "demo.json").write_text(text)
    with pytest.raises(SourceError, match=r"demo\.json is damaged") as caught:
        workspace(tmp_path).claim({"steps": 3})
    assert "delete the folder" in caught.value.fix


def test_a_kill_while_claiming_leaves_a_folder_that_can_be_claimed(tmp_path: Path) -> None:
    (tmp_path / ".demo.json.x1.tmp").write_text("{")
    workspace(tmp_path).claim({"steps": 3})
    assert workspace(tmp_path).check({"steps": 3})


def test_clearing_empties_our_folder_and_follows_no_link(tmp_path: Path) -> None:
    out, elsewhere = workspace(tmp_path / "out"), tmp_path / "elsewhere"
    workspace(tmp_path / "nowhere").clear()
    out.claim({})
    elsewhere.mkdir()
    (elsewhere / "mine").write_text("mine")
    (out.folder / "deep").mkdir()
    (out.folder / "deep" / "file").write_text("")
    (out.folder / "link").symlink_to(elsewhere, target_is_directory=True)
    out.clear()
    assert list(out.folder.iterdir()) == []
    assert (elsewhere / "mine").read_text() == "mine"


def test_bare_files_of_earlier_versions_are_taken_where_the_caller_knows_them(tmp_path: Path) -> None:
    compute, calls = counting()
    for content in ({"old": True}, [1, 2]):
        (tmp_path / "step.json").write_text(json.dumps(content))
        assert Steps(tmp_path).once("step", compute, bare=True) == content
    assert calls == []
    (tmp_path / "step.json").write_text("{")
    assert Steps(tmp_path).once("step", compute, bare=True) == ANSWER
    (tmp_path / "step.json").write_text('{"old": true}')
    assert Steps(tmp_path).once("step", compute) == ANSWER
    assert len(calls) == 2


def test_a_damaged_step_that_must_not_be_done_again_unasked_is_refused(tmp_path: Path) -> None:
    compute, calls = counting()
    steps = Steps(tmp_path)
    assert steps.once("step", compute, refuse_damaged="delete it") == ANSWER
    steps.file("step").write_text("{")
    with pytest.raises(SourceError, match=r"step\.json is damaged") as caught:
        steps.once("step", compute, refuse_damaged="delete it")
    assert caught.value.fix == "delete it"
    assert len(calls) == 1


def test_a_finished_step_is_not_done_again(tmp_path: Path) -> None:
    compute, calls = counting()
    assert Steps(tmp_path, model="a").once("a few words", compute) == ANSWER
    assert Steps(tmp_path, model="a").once("a few words", compute) == ANSWER
    assert len(calls) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a-few-words.json"]
    Steps(tmp_path, model="a").once("other words", compute)
    assert len(calls) == 2


def test_nothing_is_a_result_too(tmp_path: Path) -> None:
    compute, calls = counting(None)
    steps = Steps(tmp_path)
    assert steps.once("none", compute) is None
    assert steps.once("none", compute) is None
    assert len(calls) == 1


def test_changed_inputs_do_a_step_anew(tmp_path: Path) -> None:
    compute, calls = counting()
    steps = Steps(tmp_path, model="a")
    for bound in (steps, Steps(tmp_path, model="b"), steps.of(tokens=64), steps.of(tokens=32), steps.of(tokens=32)):
        assert bound.once("step", compute) == ANSWER
    assert len(calls) == 4
    assert Steps(tmp_path, tokens=32, model="a").once("step", compute) == ANSWER
    assert len(calls) == 4


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(file.read_bytes()[:-20]),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"\xff\xfe\x00"),
        lambda file: file.write_text("[]"),
        lambda file: file.write_text(json.dumps({key: value for key, value in content(file).items() if key != "key"})),
        lambda file: file.write_text(json.dumps({**content(file), "content": {"numbers": [1, 2.6, None]}})),
        lambda file: file.write_text(json.dumps({**content(file), "checksum": "0" * 64})),
        lambda file: (file.unlink(), file.mkdir(), file.rmdir()),
    ],
    ids=["cut off", "empty", "no text", "a list", "no key", "other content", "other checksum", "gone"],
)
def test_a_damaged_file_is_done_anew(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    compute, calls = counting()
    steps = Steps(tmp_path, model="a")
    steps.once("step", compute)
    damage(tmp_path / "step.json")
    assert steps.once("step", compute) == ANSWER
    assert len(calls) == 2
    assert steps.once("step", compute) == ANSWER
    assert len(calls) == 2


def content(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding="utf-8")))


def test_a_step_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Steps(tmp_path).once("step", fail)
    with pytest.raises(ValueError, match="JSON"):
        Steps(tmp_path).once("step", lambda: float("nan"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_held_by_one_and_deleted_if_left_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "runs" / "first"
    with alone(folder):
        with pytest.raises(OutputExists, match="another process is writing to"), alone(folder):
            raise AssertionError
        assert folder.is_dir(), "the refused one takes nothing away"
        with alone(tmp_path / "runs" / "second"):
            pass
        monkeypatch.setenv("RANK", "1")  # of a process that the same launcher started
        with alone(folder):
            pass
        monkeypatch.delenv("RANK")
    assert not (tmp_path / "runs").exists()
    with alone(folder):
        (folder / "run.json").touch()
    with alone(folder):
        assert (folder / "run.json").exists()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="lies below one"), alone(tmp_path / "file" / "run"):
        raise AssertionError
