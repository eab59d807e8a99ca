"""Readings in whatever `report_to` names: TensorBoard, Trackio, Weights & Biases and others."""

from __future__ import annotations

from typing import Any

from keeptune.train.readings import Reading

_TRACKERS = "transformers.integrations"


class ReportReadings:
    """Gives each reading to the trackers as an evaluation, so that they show it as `eval/drift_kl` and so on.

    `eval_drift_kl`, KL(base‖tuned) on old text; `eval_drift_l_f_rise`, L_f less that of the base; `eval_task_loss`,
    the held-out task loss, where the trainer has labels to read it on. All in nats per token. The trainer's own log is
    left as it is: at λ = 0 it equals the parent's.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_reading(self, row: Reading, state: Any) -> None:
        """Give one row of runs.jsonl to the trackers."""
        logs = {"eval_drift_kl": row["KL"], "eval_drift_l_f_rise": row["L_f"] - row["L_f_base"]}
        if row["L_ft_on"] == "held-out" and row["L_ft"] is not None:
            logs["eval_task_loss"] = row["L_ft"]
        trainer = self.trainer
        for callback in trainer.callback_handler.callbacks:
            if any(kind.__module__.startswith(_TRACKERS) for kind in type(callback).__mro__):
                callback.on_log(trainer.args, state, trainer.control, logs=dict(logs), model=trainer.model)
