"""What everything imports stays light: no scipy, no plotting, no laws."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("scipy", "matplotlib", "keeptune.laws")


@pytest.mark.parametrize("module", ["keeptune", "keeptune.stats", "keeptune.workspace"])
def test_a_light_module_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print([name for name in sys.modules if name.startswith({HEAVY})])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
