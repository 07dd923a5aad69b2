"""The metrics by name: what the exporter sets and the dashboard draws."""

from dataclasses import dataclass

PREFIX = "ray_"
"""Ray puts it before every name that it serves."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A gauge, or a counter; `per_task` metrics have a label `task`, all have a label `run`."""

    name: str
    meaning: str
    per_task: bool = False
    unit: str = "short"
    is_counter: bool = False

    @property
    def served_name(self) -> str:
        """As Prometheus knows it."""
        return f"{PREFIX}{self.name}{'_total' if self.is_counter else ''}"


WEIGHT = Metric("taskheat_weight", "Sampling weight of the newest plan", per_task=True, unit="percentunit")
HEAT = Metric("taskheat_heat", "Heat: how urgently the task needs exposure", per_task=True, unit="percentunit")
SCORE = Metric("taskheat_score", "Score of the last evaluation", per_task=True, unit="percentunit")
HELDOUT_LOSS = Metric("taskheat_heldout_loss", "Held-out loss, nats a token", per_task=True)
TRAIN_LOSS = Metric("taskheat_train_loss", "Training loss of the last interval, nats a token", per_task=True)
SAMPLES = Metric("taskheat_samples", "Samples trained since step 0", per_task=True)
STEP = Metric("taskheat_step", "Optimiser steps done")
TOTAL_STEPS = Metric("taskheat_total_steps", "Optimiser steps of the whole run")
STAGE = Metric("taskheat_stage", "Stage of the plan in force")
PLAN_VERSION = Metric("taskheat_plan_version", "Version of the plan in force")
STALENESS = Metric("taskheat_staleness_steps", "Age of the evaluation behind the plan in force, in steps")
SPEED = Metric("taskheat_samples_per_second", "Training speed")
FAULTS = Metric("taskheat_faults", "Restarts, late plans, skipped snapshots and what was refused", is_counter=True)

METRICS = (
    WEIGHT, HEAT, SCORE, HELDOUT_LOSS, TRAIN_LOSS, SAMPLES,
    STEP, TOTAL_STEPS, STAGE, PLAN_VERSION, STALENESS, SPEED, FAULTS,
)  # fmt: skip
FAULT_KINDS = ("restart", "actor", "late", "skipped", "refused")
"""Values of the label `kind` of `FAULTS`; see `evalsvc.report.history.EventKind`."""
