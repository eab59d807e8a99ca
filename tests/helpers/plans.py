"""Settings of a plan that time does not decide: one pass over the data bounds its runs."""

from __future__ import annotations

from pathlib import Path

from keeptune.plan.settings import PlanSettings


def plan_settings(folder: Path, model: Path) -> PlanSettings:
    """A plan in `folder`/plan of six short texts."""
    (folder / "task").mkdir()
    for number in range(6):
        text = f"Text {number}: " + " ".join(f"{(number + 3) * word} and {word * word % 17};" for word in range(5))
        (folder / "task" / f"{number}.txt").write_text(text)
    return PlanSettings(
        model=str(model),
        data=str(folder / "task"),
        budget=0.5,
        out=str(folder / "plan"),
        minutes=600.0,
        max_rank=16,
        learning_rate=1e-3,
        batch_size=2,
        max_length=32,
    )
