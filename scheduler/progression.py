"""How far a run has come, beside its weights: its state, its tasks' difficulty levels, the tasks taken out as overfit.

Three small memories that the engine folds each evaluation into, kept together because they are decided on, written
down, checkpointed and replayed together. Stages have a memory of their own (`scheduler.stages`).

    StateMachine   warm-up → stage 1 → transition → stage 2 → late → frozen    (`scheduler.states`)
    Curriculum     the open levels of every task, where the run has a curriculum (`scheduler.curriculum`)
    frozen tasks   past their held-out peak for good, where `guards.overfit_action` is `freeze` or `roll_back`
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scheduler.curriculum import Curriculum
from scheduler.errors import StateError
from scheduler.evaluation import Evaluation
from scheduler.heat import HeatState
from scheduler.records import Freeze, LevelMove
from scheduler.setup import EngineSetup, GuardConfig
from scheduler.stages import StageMachine
from scheduler.states import StateMachine, StateName

_STATE_KEYS = {"states", "curriculum", "frozen_tasks"}


@dataclass(frozen=True, slots=True)
class Step:
    """What an evaluation changed: the state that begins with the next plan (None: none), levels, frozen tasks."""

    state: StateName | None
    levels: tuple[LevelMove, ...]
    frozen: tuple[Freeze, ...]


class Progression:
    """See the module docstring. One `observe` per decision."""

    def __init__(self, setup: EngineSetup) -> None:
        self._setup = setup
        self._names = tuple(task.name for task in setup.tasks)
        self.states = StateMachine(
            setup.mixture.states, total_steps=setup.total_steps, interval_steps=setup.interval_steps
        )
        config = setup.mixture.curriculum
        self.curriculum: Curriculum | None = None
        if config is not None and setup.level_sizes:
            self.curriculum = Curriculum(config, names=self._names, num_levels=tuple(map(len, setup.level_sizes)))
        self.frozen_tasks: NDArray[np.bool_] = np.zeros(len(setup.tasks), dtype=bool)

    def curriculum_of(self, stage: int) -> Curriculum | None:
        """What decides the difficulty levels of this stage; None where its own window or nothing does."""
        return self.curriculum if self._setup.stage_difficulty[stage - 1] is None else None

    def observe(
        self,
        evaluation: Evaluation,
        heat: HeatState,
        *,
        stages: StageMachine,
        guards: GuardConfig,
        effective_step: int,
    ) -> Step:
        """Fold in one evaluation, with heat, stage and guards after it; once the run is frozen nothing else moves."""
        state = self.states.observe(
            effective_step=effective_step,
            stage=stages.stage,
            stage_start_step=stages.stage_start_step,
            anything_measured=len(evaluation.signals) > 0,
        )
        if self.states.state == "frozen":
            return Step(state, (), ())
        curriculum = self.curriculum_of(stages.stage)
        progress = effective_step / self._setup.total_steps
        levels = () if curriculum is None else curriculum.observe(evaluation, progress=progress)
        return Step(state, levels, self._freeze(evaluation, heat, guards))

    def _freeze(self, evaluation: Evaluation, heat: HeatState, guards: GuardConfig) -> tuple[Freeze, ...]:
        if guards.overfit_action == "cool":
            return ()
        past = (heat.overfit >= guards.overfit_patience) & evaluation.measured & ~self.frozen_tasks
        self.frozen_tasks = self.frozen_tasks | past
        return tuple(
            Freeze(
                self._names[task],
                float(heat.loss[task]),
                float(heat.best_loss[task]),
                int(heat.overfit[task]),
                int(heat.best_loss_step[task]),
            )
            for task in np.flatnonzero(past).tolist()
        )

    def freeze(self, tasks: Collection[str]) -> None:
        """Take these tasks out, as `observe` would: a part of the run that was gone back on shows that they overfit."""
        if self._setup.freezes:
            self.frozen_tasks = self.frozen_tasks | np.array([name in tasks for name in self._names])

    def state_dict(self) -> dict[str, Any]:
        """JSON-able copy."""
        return {
            "states": self.states.state_dict(),
            "curriculum": None if self.curriculum is None else self.curriculum.state_dict(),
            "frozen_tasks": np.flatnonzero(self.frozen_tasks).tolist(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`. Raises StateError where the state is not one of this run."""
        if state.keys() != _STATE_KEYS or (state["curriculum"] is None) != (self.curriculum is None):
            raise StateError(
                f"progression state has the keys {sorted(state)}, expected {sorted(_STATE_KEYS)} "
                f"{'without' if self.curriculum is None else 'with'} a curriculum"
            )
        frozen = state["frozen_tasks"]
        if not all(0 <= task < len(self._names) for task in frozen):
            raise StateError(f"the tasks {frozen} are frozen; this run has {len(self._names)} tasks")
        self.states.load_state_dict(state["states"])
        if self.curriculum is not None:
            self.curriculum.load_state_dict(state["curriculum"])
        self.frozen_tasks = np.isin(np.arange(len(self._names)), frozen)

    def inherited(self, state: Mapping[str, Any], *, of: EngineSetup) -> dict[str, Any]:
        """The state with which this run goes on from a run under `of`: what their settings share goes on."""
        mine, kept = self.state_dict(), dict(state)
        if self._setup.mixture.states != of.mixture.states:
            kept["states"] = {**state["states"], "state": mine["states"]["state"]}
        if self.curriculum is None or state["curriculum"] is None:
            kept["curriculum"] = mine["curriculum"]
        if not self._setup.freezes:
            kept["frozen_tasks"] = []
        return kept
