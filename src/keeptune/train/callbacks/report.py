"""Readings in whatever `report_to` names: TensorBoard, Trackio, Weights & Biases and others."""

from __future__ import annotations

from typing import Any

from transformers import Trainer

from keeptune.train.readings import Reading


class ReportReadings:
    """Logs each reading as the trainer logs an evaluation, so that trackers show it as `eval/drift_kl` and so on.

    `eval_drift_kl`, KL(base‖tuned) on old text; `eval_drift_l_f_rise`, L_f less that of the base; `eval_task_loss`,
    the held-out task loss, where the trainer has labels to read it on. All in nats per token.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_reading(self, row: Reading, state: Any) -> None:
        """Log one row of runs.jsonl."""
        logs = {"eval_drift_kl": row["KL"], "eval_drift_l_f_rise": row["L_f"] - row["L_f_base"]}
        if row["L_ft_on"] == "held-out" and row["L_ft"] is not None:
            logs["eval_task_loss"] = row["L_ft"]
        # Not the trainer's own `log`: TRL's would add, and forget, the metrics of a step that is not over.
        Trainer.log(self.trainer, logs)
