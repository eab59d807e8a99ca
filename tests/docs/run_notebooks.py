"""Run the notebooks in a real kernel, on a tiny model: `make notebooks`.

The cell that is tagged `parameters` is replaced, as papermill does; all other cells run as they stand.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from tests.helpers.models import make_model, make_tokenizer

ROOT = Path(__file__).parents[2]
TINY = {
    "keep": 'MODEL, DATA, STEPS, LENGTH, REPLAY_TOKENS = "base", "notes/*.txt", 8, 32, 1024',
    "audit": 'BASE, DATA, STEPS, LENGTH, DOCUMENTS = "base", "notes/*.txt", 2, 32, 12',
}


def main() -> None:
    """Run each; an error in a cell ends it with the cell's traceback."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for name, parameters in TINY.items():
        notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
        (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
        cell.source = parameters
        with tempfile.TemporaryDirectory() as folder:
            stand_in(Path(folder))
            resources = {"metadata": {"path": folder}}
            NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources).execute()
        shown = sum(bool(cell.outputs) for cell in notebook.cells if cell.cell_type == "code")
        print(f"{name}: {len(notebook.cells)} cells ran, {shown} show something", flush=True)


def stand_in(folder: Path) -> None:
    """The model and the texts that the parameters name."""
    make_model().save_pretrained(folder / "base")
    make_tokenizer().save_pretrained(folder / "base")
    (folder / "notes").mkdir()
    for number in range(24):
        (folder / "notes" / f"{number}.txt").write_text(f"Note {number} speaks of the number {number}. " * 3)


if __name__ == "__main__":
    main()
