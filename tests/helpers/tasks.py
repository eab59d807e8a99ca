"""Multiple-choice questions, and a file of them with a damaged last line."""

from __future__ import annotations

import json
from pathlib import Path

from keeptune.audit.tasks.items import Item

ITEMS = [
    Item(name="colour", question="Which colour is the sky?", choices=("blue", "blue and red", "green"), right=0),
    Item(name="number", question="Seven and three?", choices=("1", "10", "100", "11", "7"), right=1),
    Item(name="heat", question="What melts?", choices=("ice in the sun", "a stone"), right=0),
]


def write_task(path: Path, count: int) -> Path:
    rows = [
        {"id": f"q{n}", "question": f"Which is {n}?", "choices": [str(n), str(n + 1), "none"], "answer": n % 3}
        for n in range(count)
    ]
    path.write_text("\n".join(map(json.dumps, rows)) + '\n{"question": "half a li')
    return path
