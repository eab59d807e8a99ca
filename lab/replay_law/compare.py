"""How well the replay law foretells cells of λ × replay tokens that it has not seen, beside simpler laws.

    python lab/replay_law/compare.py                           # reads results.csv, writes comparison.json
    python lab/replay_law/compare.py results_gpu.csv --after 20

No training: the numbers come anew from the committed readings.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from keeptune.laws.record import write_laws
from keeptune.laws.replay_record import fit_replay_law
from keeptune.laws.rows import ReplayRuns, read_any_runs
from keeptune.laws.words import print_laws

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="?", type=Path, default=HERE / "results.csv")
    parser.add_argument("--after", type=int, default=0, help="leave out readings up to this step")
    parser.add_argument("--out", type=Path, default=HERE / "comparison.json")
    given = parser.parse_args()
    runs = read_any_runs([given.results], after=given.after)
    if not isinstance(runs, ReplayRuns):
        raise SystemExit(f"{given.results} has one λ and one pool only: nothing to compare")
    laws = fit_replay_law(runs)
    write_laws(given.out, laws)
    print_laws(laws)


if __name__ == "__main__":
    main()
