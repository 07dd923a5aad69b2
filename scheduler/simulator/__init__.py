"""Any policy against learner models: the real engine in its own loop, with formulas where the language model would be.

    settings ─► Learner ─ true scores, losses ─► measured by probes ─► TaskSignal ─► HeatEngine ─► plan
                   ▲                                                                                 │
                   └──────────── samples per task, apportioned exactly by the plan in force ◄────────┘

A simulation tells how a policy reacts to a situation that is described; it does not tell how a model would learn. Every
formula is in `learner`, every assumption a setting in `config`.
"""

from scheduler.simulator.config import LearnerConfig, MeasurementConfig, TaskLearner
from scheduler.simulator.fit import FitPoints, TaskFit, fit_tasks
from scheduler.simulator.learner import Learner, Truth
from scheduler.simulator.loop import SimulatedRun, simulate

__all__ = [
    "FitPoints",
    "Learner",
    "LearnerConfig",
    "MeasurementConfig",
    "SimulatedRun",
    "TaskFit",
    "TaskLearner",
    "Truth",
    "fit_tasks",
    "simulate",
]
