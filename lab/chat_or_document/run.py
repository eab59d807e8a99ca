"""Self-replay of a chat model: does it write documents or chats, and which of its abilities does either keep?

    python lab/chat_or_document/run.py                   # the cells that are missing, then results.csv
    python lab/chat_or_document/run.py --size smoke      # seconds
    python lab/chat_or_document/run.py --size gpu --ray

Writes results.csv, what is read of every model on each document, item and prompt. The files that three of the readings
need are named by the environment: see README.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from grid import experiment
from instructed import cell_rows, run_cell

HERE = Path(__file__).resolve().parent

if __name__ == "__main__":
    experiment(HERE, __doc__, run_cell, cell_rows)
