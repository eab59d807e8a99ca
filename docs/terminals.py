"""Pictures of keeptune in a terminal: `keeptune demo --quick`, `tune` and `audit`, as SVG, for the documentation.

    python docs/terminals.py FOLDER          # runs the commands there in tmux; about five minutes on two quiet cores
    python docs/terminals.py FOLDER tune     # one of them

Each command runs in a terminal of its own, of `SIZE`, until it ends. rich draws its last screen, colors included.
"""

from __future__ import annotations

import io
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

DOCS = Path(__file__).resolve().parent
SIZE = (104, 44)
COMMANDS = {
    "demo": "keeptune demo --quick",
    "tune": "keeptune tune demo-quick/base pydoc --out run --steps 40 --replay-tokens 20000 --overwrite",
    "audit": "keeptune audit demo-quick/base demo-quick/plain/model --quick --out audit",
}
# rich names a font on a server; a page asks for nothing from elsewhere.
SVG = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>.{unique_id}-matrix {{ font: {char_height}px/{line_height}px monospace; }}
.{unique_id}-title {{ font: bold 18px sans-serif; }}
{styles}</style>
<defs><clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g></svg>
"""


def main() -> None:
    folder, asked = Path(sys.argv[1]).resolve(), sys.argv[2:] or list(COMMANDS)
    if shutil.which("tmux") is None:
        sys.exit("tmux is not installed")
    folder.mkdir(parents=True, exist_ok=True)
    for name in asked:
        draw(name, COMMANDS[name], screen_of(COMMANDS[name], folder))


def screen_of(command: str, folder: Path) -> str:
    """The last screen of a command, with its escape sequences for colors."""
    session, done = f"keeptune-{time.time_ns()}", folder / ".done"
    done.unlink(missing_ok=True)
    bin_folder = Path(sys.executable).parent
    script = f"export PATH={shlex.quote(str(bin_folder))}:$PATH; clear; {command}; touch .done; sleep 60"
    width, height = map(str, SIZE)
    start = ["tmux", "new-session", "-d", "-s", session, "-x", width, "-y", height, "-c", str(folder), script]
    subprocess.run(start, check=True)
    try:
        while not done.is_file():
            subprocess.run(["tmux", "has-session", "-t", session], check=True, capture_output=True)
            time.sleep(0.5)
        time.sleep(0.5)
        shown = ["tmux", "capture-pane", "-p", "-e", "-t", session]
        return subprocess.run(shown, capture_output=True, text=True, check=True).stdout.rstrip()
    finally:
        subprocess.run(["tmux", "kill-session", "-t", session], check=False)


def draw(name: str, command: str, screen: str) -> None:
    """docs/terminal-NAME.svg."""
    lines = screen.splitlines()
    console = Console(record=True, width=SIZE[0], file=io.StringIO(), force_terminal=True)
    console.print(Text(f"$ {command}", style="bold"))
    console.print(Text.from_ansi("\n".join(lines)))
    svg = console.export_svg(title=f"keeptune {name}", code_format=SVG, unique_id=f"terminal-{name}")
    (DOCS / f"terminal-{name}.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
