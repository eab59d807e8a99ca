"""What everything imports stays light: `import keeptune` the standard library alone, help only what prints it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import packages_distributions, requires

import pytest

HEAVY = ("scipy", "matplotlib", "keeptune.laws")


@pytest.mark.parametrize("module", ["keeptune", "keeptune.stats", "keeptune.workspace"])
def test_a_light_module_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print([name for name in sys.modules if name.startswith({HEAVY})])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def _loaded(code: str, *arguments: str) -> set[str]:
    """The modules that a program has loaded at its end."""
    tail = "\nimport json, sys; print('\\n' + json.dumps(sorted(sys.modules)))"
    command = [sys.executable, "-c", code + tail, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_import_is_the_standard_library_alone() -> None:
    new = _loaded("import keeptune; assert keeptune.__all__") - _loaded("")
    foreign = {name.partition(".")[0] for name in new} - sys.stdlib_module_names - {"keeptune"}
    assert not foreign
    assert {name for name in new if name.startswith("keeptune")} == {"keeptune"}
    assert "importlib.metadata" not in new, "it takes as long as all the rest"


@pytest.fixture(scope="module")
def computing() -> set[str]:
    """The modules of everything that keeptune depends on, but what its help is printed with."""

    def normal(name: str) -> str:
        return re.sub(r"[-_.]+", "-", name).lower()

    names = {normal(re.split(r"[^\w.-]", line)[0]) for line in requires("keeptune") or []} - {"cyclopts", "rich"}
    owners = packages_distributions().items()
    return {module for module, owned in owners if names & {normal(name) for name in owned}}


@pytest.mark.parametrize("arguments", ["--help", "--version", "laws --help", "laws fit --help", "compare --help"])
def test_help_loads_none_of_what_computes(computing: set[str], arguments: str) -> None:
    assert {"torch", "transformers", "numpy", "yaml"} <= computing
    code = "import keeptune.cli as c\ntry: c.main()\nexcept SystemExit as end: assert not end.code"
    loaded = _loaded(code, *arguments.split())
    assert not computing & loaded
    assert {"keeptune.cli", "cyclopts", "rich"} <= loaded
