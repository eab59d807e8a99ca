"""Figure, table and claims of equal_minutes, for Gemma 3 270M."""

from __future__ import annotations

from equal_minutes.plot import claims, figure, table

__all__ = ["claims", "figure", "table"]
