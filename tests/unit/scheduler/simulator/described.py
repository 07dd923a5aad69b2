"""Learners described in a few words and setups of them, for the tests of the simulator."""

from typing import Any

from scheduler.setup import EngineSetup, HeatPolicy, MixtureConfig, Policy
from scheduler.simulator import LearnerConfig
from scheduler.task import TaskSpec

INTERVAL = 25

TRAPS: dict[str, Any] = {
    "easy": {"curve": {"type": "power_law", "scale_samples": 150}},
    "hard": {"curve": {"type": "power_law", "scale_samples": 3000, "sharpness": 2}},
    "noise": {"curve": {"type": "noise", "chance_score": 0.1}},
    "saturated": {"curve": {"type": "saturated", "score": 0.97}},
}


def learner(tasks: dict[str, Any] | None = None, **fields: Any) -> LearnerConfig:
    return LearnerConfig.model_validate({"tasks": tasks or TRAPS, "spread": 0.0, **fields})


def setup(
    config: LearnerConfig,
    *,
    steps: int = 400,
    batch_size: int = 16,
    policy: Policy | None = None,
    **mixture: Any,
) -> EngineSetup:
    policy = policy or HeatPolicy()
    return EngineSetup(
        tasks=tuple(TaskSpec(name=name) for name in config.tasks),
        num_rows=tuple(task.rows for task in config.tasks.values()),
        seed=0,
        total_steps=steps,
        global_batch_size=batch_size,
        mixture=MixtureConfig.model_validate({"interval_steps": INTERVAL, **mixture}),
        boundary=None,
        stage_policies=(policy, policy),
    )
