"""The laws fitted to results.csv, and their pictures: python lab/forgetting_laws/plot.py

No training. Writes laws.json (R², parameters, errors on what was held out, beside the paper's) and, for each domain,
figure-<domain>.svg and .png.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from grid import write_csv

from keeptune.laws.figures import drawing
from keeptune.laws.plots import frontier_figure, laws_figure
from keeptune.laws.record import fit_laws
from keeptune.laws.rows import Runs, read_runs
from keeptune.plot_style import save
from keeptune.storage import write_json

HERE = Path(__file__).resolve().parent
# The first tenth: the learning rate warms up, and the loss is that of the base. The paper leaves out 50 of 260.
AFTER = 10
PAPER = {
    "OpenOrca": {"line_r2": 0.9450, "joint_r2_L_f": 0.9598, "c_f_ft": 1.7334, "rho": 7.6885},
    "News": {"line_r2": 0.9736, "joint_r2_L_f": 0.9769, "c_f_ft": 1.0615, "rho": 7.5996},
}


def domains(path: Path) -> dict[str, Runs]:
    """The readings of each domain."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for domain in dict.fromkeys(row["data"] for row in rows):
            own = Path(folder) / f"{domain}.csv"
            write_csv(own, [row for row in rows if row["data"] == domain])
            found[domain] = read_runs([own], after=AFTER)
    return found


def main() -> None:
    whole: dict[str, Any] = {"after": AFTER, "paper": PAPER}
    for domain, runs in domains(HERE / "results.csv").items():
        laws = fit_laws(runs)
        whole[domain] = {
            "readings": len(runs),
            "line": {key: laws["line"][key] for key in ("params", "spread", "r2")},
            "joint": laws["joint"] if isinstance(laws["joint"], str) else {
                key: laws["joint"][key] for key in ("params", "spread", "weak", "r2", "condition")
            },
            "held_out": laws.get("held_out"),
        }  # fmt: skip
        drawn = drawing(runs)
        for suffix in ("svg", "png"):
            save(laws_figure(drawn), HERE / f"figure-{domain}.{suffix}")
            save(frontier_figure(drawn), HERE / f"frontier-{domain}.{suffix}")
    write_json(HERE / "laws.json", whole)


if __name__ == "__main__":
    main()
