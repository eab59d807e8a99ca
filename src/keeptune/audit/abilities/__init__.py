"""Abilities that users report losing, as one suite of our own items: `standard` lists it, `measure_suite` asks it."""
