"""Reading runs: what is kept, counted and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from keeptune.errors import ConfigError, SourceError, SourceNotFound
from keeptune.laws.readings import ReplayRuns, read_any_runs, read_runs


def row(step: int, P: int = 1000, **more: Any) -> dict[str, Any]:
    return {"step": step, "N": step, "P": P, "L_ft": 2.0 - step / 100, "L_f": 1.0 + step / 100, "base": "b1", **more}


def write(path: Path, rows: list[dict[str, Any]], end: str = "") -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + end)
    return path


def test_runs_of_several_files_and_folders(tmp_path: Path) -> None:
    write(tmp_path / "a" / "runs.jsonl", [row(0), row(10), row(20)], end='{"step": 30, "L_')
    write(tmp_path / "b.jsonl", [row(10, 2000, seed=0), row(10, 2000, seed=1)])
    runs = read_runs([tmp_path / "a", tmp_path / "b.jsonl"])
    assert runs.P.tolist() == [1000, 1000, 2000, 2000]
    assert runs.N.tolist() == [10, 20, 10, 10]
    assert runs.L_ft.tolist() == pytest.approx([1.9, 1.8, 1.9, 1.9])
    assert runs.run.tolist() == [0, 0, 1, 2]
    assert (runs.count, runs.sizes, runs.base, runs.left_out, runs.dropped) == (3, [1000, 2000], "b1", 1, 0)


def test_readings_without_numbers_are_dropped_and_counted_and_early_ones_left_out(tmp_path: Path) -> None:
    rows = [row(10), {**row(20), "L_ft": None}, {**row(30), "L_f": float("nan")}, row(40), row(50)]
    runs = read_runs([write(tmp_path / "runs.jsonl", rows)], after=10)
    assert runs.N.tolist() == [40, 50]
    assert (runs.dropped, runs.left_out) == (2, 1)


def test_a_csv_with_or_without_names_of_runs(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("P,step,L_ft,L_f,run\n8,1,2.0,1.0,x\n8,2,1.5,,x\n8,1,2.1,1.1,y\n16,1,inf,1,x\n")
    runs = read_runs([table])
    assert runs.run.tolist() == [0, 1]
    assert (runs.L_f.tolist(), runs.dropped, runs.base) == ([1.0, 1.1], 2, None)


@pytest.mark.parametrize(
    ("name", "other"),
    [("base", "b2"), ("lambda", 3), ("objective", "ntp"), ("L_ft_on", "train"), ("data", "spanish"),
     ("learning_rate", 0.001)],
)  # fmt: skip
def test_runs_on_different_curves_are_not_mixed(tmp_path: Path, name: str, other: Any) -> None:
    same = {"lambda": 1.0, "objective": "kl", "L_ft_on": "held-out", "data": "verilog", "learning_rate": 2e-4}
    one = write(tmp_path / "one.jsonl", [row(10, **same)])
    two = write(tmp_path / "two.jsonl", [row(10, **{**same, name: other})])
    assert read_runs([one, one]).count == 1
    (tmp_path / "alike.csv").write_text("P,N,L_ft,L_f,learning_rate\n1000,10,2,1,0.00020\n")
    assert read_runs([one, tmp_path / "alike.csv"]).count == 2
    with pytest.raises(ConfigError, match=f"differ in {name}: .* in .*one.jsonl, {other} in .*two.jsonl"):
        read_runs([one, two])


def test_runs_that_differ_in_replay_are_refused_or_read_with_it(tmp_path: Path) -> None:
    def of(name: str, weight: float, tokens: int | None, **more: Any) -> Path:
        rows = [row(step, **{"lambda": weight, "replay_tokens": tokens, "L_f_base": 0.9, **more}) for step in (10, 20)]
        return write(tmp_path / f"{name}.jsonl", rows)

    plain, small, large = of("plain", 0, None), of("small", 1, 1000), of("large", 1.0, 8000)
    for paths, name in (((plain, small), "lambda"), ((small, large), "replay_tokens")):
        with pytest.raises(ConfigError, match=f"differ in {name}"):
            read_runs(paths)
    runs = read_any_runs([plain, small, large], after=10)
    assert isinstance(runs, ReplayRuns)
    assert runs.cells == [(0, 0), (1, 1000), (1, 8000)]
    assert (runs.L_f_base, runs.count, runs.left_out) == (0.9, 3, 3)
    assert runs.where(runs.tokens > 0).lambda_.tolist() == [1, 1]
    assert type(read_any_runs([small, small])) is type(read_runs([small, small]))
    with pytest.raises(ConfigError, match="differ in base"):
        read_any_runs([small, of("other", 3, 10, base="b2")])
    nothing = of("nothing", 3, None)
    assert read_any_runs([plain, small, nothing]).dropped == 2
    moving = write(
        tmp_path / "moving.jsonl", [row(n, **{"lambda": n, "replay_tokens": 9, "L_f_base": 1}) for n in (1, 2)]
    )
    with pytest.raises(ConfigError, match="change within a run") as caught:
        read_any_runs([moving])
    assert "a column run" in caught.value.fix
    for bad, said in (
        ({"lambda": 1.0}, "no column replay_tokens"),
        ({"lambda": 1.0, "replay_tokens": 5}, "no column L_f_base"),
        ({"lambda": -1, "replay_tokens": 5, "L_f_base": 1}, "lambda = -1"),
        ({"lambda": 1, "replay_tokens": 0, "L_f_base": 1}, "replay_tokens = 0"),
        ({"lambda": 1, "replay_tokens": "x", "L_f_base": 1}, "could not convert"),
    ):
        with pytest.raises(SourceError, match=said):
            read_any_runs([plain, write(tmp_path / "bad.jsonl", [row(10, **bad)])])


def test_what_is_no_table_of_readings(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match="no readings at"):
        read_runs([tmp_path / "nosuch"])
    with pytest.raises(SourceNotFound, match=r"runs\.jsonl"):
        read_runs([tmp_path])
    table = tmp_path / "t.csv"
    for text, said in (
        ("P,N,L_ft\n1,1,1\n", "row 1: no column L_f"),
        ("P,L_ft,L_f\n1,1,1\n", "no column step"),
        ("P,N,L_ft,L_f\n1,ten,1,1\n", "row 1: N: could not convert"),
        ("P,N,L_ft,L_f\n1,1,1,1\n0,1,1,1\n", "row 2: P = 0"),
        ("P,N,L_ft,L_f\n1,1,0,1\n", "row 1: L_ft = 0"),
        ("P,N,L_ft,L_f\n1,1,1,0\n", "row 1: L_f = 0"),
        ("P,N,L_ft,L_f\n1,1,1\n", "no usable reading: 1 without"),
        ("", "no usable reading"),
        ("P,N,L_ft,L_f\n1,0,1,1\n", "1 too early"),
    ):
        table.write_text(text)
        with pytest.raises(SourceError, match=said):
            read_runs([table])
    table.write_bytes(b"P,N\n\xff\xfe")
    with pytest.raises(SourceError, match="not a table"):
        read_runs([table])
    lines = tmp_path / "l.jsonl"
    lines.write_text("[1]\n")
    with pytest.raises(SourceError, match="not a JSON object"):
        read_runs([lines])
    lines.write_text(json.dumps(row(1, P=10**400)) + "\n")
    with pytest.raises(SourceError, match="too large"):
        read_runs([lines])
    for name, value in (("P", [1]), ("L_ft", {}), ("L_f", [None]), ("N", {"a": 1})):
        with pytest.raises(SourceError, match=f"row 1: {name} is of type"):
            read_runs([write(lines, [row(1, **{name: value})])])
    lines.write_text("oops\n{}\n")
    with pytest.raises(SourceError, match="line 1: not JSON"):
        read_runs([lines])
    with pytest.raises(SourceError, match="no usable reading"):
        read_runs([])
    with pytest.raises(ConfigError, match="--after is -1"):
        read_runs([write(lines, [row(0), row(10, run=[1])])], after=-1)
    assert read_runs([lines]).count == 1
