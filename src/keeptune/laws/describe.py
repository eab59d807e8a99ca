"""Fits and predictions on standard output."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from keeptune.laws.joint.document import DataRecord, Laws
from keeptune.laws.replay.record import ReplayLaws
from keeptune.laws.robust import Band
from keeptune.stats import format_ends, format_interval


def print_laws(laws: Laws | ReplayLaws) -> None:
    """Print the result of `fit_laws` or `fit_replay_law`."""
    data: DataRecord = laws["data"]
    lines = [f"{data['readings']} readings of {data['runs']} runs with {len(data['P'])} different P"]
    if data["dropped"]:
        lines.append(f"{data['dropped']} readings dropped: a value is missing, NaN or infinite")
    if data["left_out"]:
        lines.append(f"{data['left_out']} readings left out: too early")
    lines += _replay_lines(laws) if "replay" in laws else _lines(laws)
    sys.stdout.write("\n".join(lines) + "\n")


def print_bands(bands: Mapping[str, Band], interval: float | None = None) -> None:
    """Print predictions of single runs, nats per token, with their intervals if there are any."""
    for name, band in bands.items():
        line = f"{name:<5} {float(band.value):.4f} nats per token"
        if band.low is not None and interval is not None:
            low, high, reading_low, reading_high = (float(end) for end in band[1:] if end is not None)
            line += f"   law {format_ends(low, high)}"
            line += f"   a new reading {format_ends(reading_low, reading_high)}   ({interval:.0%} intervals)"
        elif interval is not None:
            line += "   (no interval: a published law, a single run, or no replicates)"
        sys.stdout.write(line + "\n")


def _replay_lines(laws: ReplayLaws) -> list[str]:
    replay, left_out = laws["replay"], laws["left_out"]
    lines = [f"Replay law: R² {replay['r2'][0]:.3f} for L_ft, {replay['r2'][1]:.3f} for L_f"]
    lines += [f"  {name} {value:.4g}" for name, value in replay["params"].items() if name not in replay["spread"]]
    lines += _ranges(replay["spread"], replay["weak"])
    if replay["form"] == "no_tokens":
        lines.append("  replay tokens: all pools have one size, so the effect of the size is not known")
    lines += _weak(replay["weak"])
    if isinstance(left_out, str):
        return [*lines, f"Error on held-out cells: not known, {left_out}"]
    lines.append(f"Mean error on {len(left_out['cells'])} cells of λ and replay tokens, each held out in turn:")
    for form, errors in left_out["mean"].items():
        line = f"  {form:<9} L_ft {errors['L_ft']:.4f}, L_f {errors['L_f']:.4f} nats per token"
        if form in left_out["against"]:
            difference = dict(zip(("value", "low", "high"), left_out["against"][form], strict=True))
            line += f"   (L_f: {format_interval(difference, '+.4f')} against the replay law)"
        lines.append(line)
    return lines


def _lines(laws: Laws) -> list[str]:
    line, joint = laws["line"], laws["joint"]
    lines = [f"Line: L_f = {-line['params']['c']:.4f}·L_ft + {line['params']['s']:.4f}, R² {line['r2']:.3f}"]
    lines += _ranges(line["spread"])
    if isinstance(joint, str):
        return [*lines, f"Only the line is fitted: {joint}"]
    lines.append(f"Joint law: R² {joint['r2'][0]:.3f} for L_ft, {joint['r2'][1]:.3f} for L_f")
    lines += [*_ranges(joint["spread"], joint["weak"]), *_weak(joint["weak"]), "Median error on held-out readings:"]
    ranks, last = laws["held_out"]["one_rank"], laws["held_out"]["last_30_percent"]
    if isinstance(ranks, str):
        lines.append(f"  another P: not known, {ranks}")
    else:
        lines += [f"  P = {of['P']:,.0f}: L_ft {of['L_ft']:.2%}, L_f {of['L_f']:.2%}" for of in ranks]
    if isinstance(last, str):
        return [*lines, f"  the last 30 % of every run: not known, {last}"]
    return [*lines, f"  the last 30 % of every run: L_ft {last['L_ft']:.2%}, L_f {last['L_f']:.2%}"]


def _ranges(spread: Mapping[str, tuple[float, float]], weak: Sequence[str] = ()) -> list[str]:
    shown = {name: format_ends(low, high, ".4g") for name, (low, high) in spread.items() if name not in weak}
    return [f"  {name} in {ends} (90 %)" for name, ends in shown.items()]


def _weak(names: Sequence[str]) -> list[str]:
    shown = ", ".join(names)
    return [f"  not determined by these runs (use predictions, not these values): {shown}"] if names else []
