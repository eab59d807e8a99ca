"""A chat model learns Verilog: KL or next-token replay, on its own text or on foreign text. (Marek et al. 2026)

    python lab/instruct/run.py                   # the cells that are missing, then results.csv
    python lab/instruct/run.py --size smoke      # seconds
    python lab/instruct/run.py --size gpu --ray

Writes results.csv, what is read of every model on each document, item and prompt, and samples.jsonl, what the models
answer. The files that three of the readings need are named by the environment: see README.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from grid import arguments, experiment
from instructed import cell_rows, keep_answers, run_cell

HERE = Path(__file__).resolve().parent

if __name__ == "__main__":
    experiment(HERE, __doc__, run_cell, cell_rows)
    keep_answers(HERE, arguments(__doc__))
