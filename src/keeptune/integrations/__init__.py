"""keeptune inside the hosts that people train with. Each module is imported by its host only."""

from __future__ import annotations


def __getattr__(name: str) -> object:
    if name == "axolotl":  # Axolotl reads the last part of a plugin's name as its class
        raise AttributeError("name the plugin's class in Axolotl's YAML: keeptune.integrations.axolotl.KeepPlugin")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
