"""`taskheat explain`: the decision in force at a step, told from the run's ledger alone.

    step ─► boundary the step lies in ─► plan in force there ─► its decision, the signals it was made on, and whatever
            happened between that evaluation and the step: what was refused, plans late, snapshots skipped, restarts

Nothing is recomputed (`taskheat replay` does that): what is told is what was decided and written down at the time. Of
a run that restarted, only what the model was really made by is told. Wording of moves and measurements is in
`scheduler.explain`, layout in `cluster.views.explain_text`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evalsvc.report.history import Boundary, Event, RunHistory
from scheduler.errors import ConfigError, LedgerError
from scheduler.explain import BROUGHT_WITHIN_BOUNDS, measured, sentence
from scheduler.guards import Guards
from scheduler.ledger import read_ledger
from scheduler.plan import MixturePlan
from scheduler.prior import prior_weights
from scheduler.records import DecisionRecord, ForkRecord, Record, RunRecord, TaskDecision
from scheduler.setup import EngineSetup
from scheduler.signals import TaskSignal


@dataclass(frozen=True, slots=True)
class TaskMove:
    """One task's part: its share, in words why, and the numbers; `decision` is None under the initial plan.

    `signal` is what the decision's own evaluation measured; None if the task was not measured in it.
    """

    task: str
    weight: float
    why: str
    found: str
    decision: TaskDecision | None
    signal: TaskSignal | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why the run trains what it trains at `step`.

    Attributes:
        step: The step asked for.
        total_steps: Of the run.
        in_force_from: Boundary at which the workers took the plan up.
        in_force_until: The boundary that ended it, or the end of what is trained so far.
        plan: The plan in force.
        policy: Type of the policy that was asked.
        stage: The stage and, where it began with this plan, why.
        held: Why the policy moved nothing, or None.
        moved: Total variation between this plan and the one before, in [0, 1].
        max_change: Greatest total variation that the step limit allowed it, in the state the run was in.
        held_by: How many tasks each guard held back.
        tasks: Largest move first; only the one asked for, if one was.
        events: What else happened from the evaluation to the step, in words, oldest first.
    """

    step: int
    total_steps: int
    in_force_from: int
    in_force_until: int
    plan: MixturePlan
    policy: str
    stage: str
    held: str | None
    moved: float
    max_change: float
    held_by: dict[str, int]
    tasks: tuple[TaskMove, ...]
    events: tuple[str, ...]


def explain_step(path: Path, step: int, *, task: str | None = None) -> Explanation:
    """Explain the decision in force at `step` in the run at `path` (its directory or ledger).

    Args:
        path: A run, finished or still going on.
        step: An optimiser step, from 0.
        task: Tell of this task only.

    Raises:
        LedgerError: No ledger, or a damaged one.
        ConfigError: The run has not come to this step, or has no such task.
    """
    records = list(read_ledger(path))
    history = RunHistory.of(records)
    if task is not None and task not in history.task_names:
        raise ConfigError(f"--task {task}: the run has no such task; its tasks are {', '.join(history.task_names)}")
    boundary, until = _interval_of(history, step)
    plan = boundary.plan
    decision = next((made for made in history.decisions if made.plan.version == plan.version), None)
    setup = _setup_of(records, decision)
    sentences = () if decision is None else decision.sentences
    moves = _initial(setup, plan) if decision is None else _moves(history, decision)
    return Explanation(
        step=step,
        total_steps=setup.total_steps,
        in_force_from=_taken_up(history, boundary),
        in_force_until=until,
        plan=plan,
        policy=setup.stage_policies[plan.stage - 1].type,
        stage=_stage(history, plan),
        held=None if decision is None else decision.held,
        moved=0.0 if decision is None else 0.5 * sum(_move(made) for made in decision.tasks),
        max_change=_max_change(setup, plan, decision),
        held_by=_held_by(decision),
        tasks=tuple(move for move in moves if task in (None, move.task)),
        events=(
            *(sentence for sentence in sentences if sentence == BROUGHT_WITHIN_BOUNDS),
            *(event.text for event in history.events if _concerns(event, plan, step)),
        ),
    )


def _interval_of(history: RunHistory, step: int) -> tuple[Boundary, int]:
    """The last boundary that is not after `step`, and the step at which its plan was superseded or training stands.

    Of a run that goes on the interval that is being trained counts too: its plan is known.
    """
    setup, reached = history.run_setup, history.step
    ended = history.end is not None
    last = reached if ended else min(reached + setup.interval_steps - 1, setup.total_steps)
    if not 0 <= step <= last:
        raise ConfigError(
            f"--step {step}: the run {'ended at' if ended else 'has come to'} step {reached} of {setup.total_steps}; "
            f"give a step from 0 to {last}"
        )
    before = [boundary for boundary in history.boundaries if boundary.report.step <= step]
    if not before:
        raise LedgerError(f"the ledger has no report of a boundary up to step {step}; the workers have not begun")
    later = (boundary.report.step for boundary in history.boundaries if boundary.plan.version > before[-1].plan.version)
    return before[-1], next(later, max(reached, step))


def _taken_up(history: RunHistory, boundary: Boundary) -> int:
    """First boundary whose steps were trained under the plan of `boundary`."""
    version = boundary.plan.version
    return next(other.report.step for other in history.boundaries if other.plan.version == version)


def _setup_of(records: Sequence[Record], decision: DecisionRecord | None) -> EngineSetup:
    """The setup that held when the decision was made: of a fork, its parent's before it went its own way."""
    setup: dict[str, object] = {}
    for record in records:
        if isinstance(record, RunRecord | ForkRecord):
            setup = record.setup
        if record is decision or (decision is None and setup):
            break
    return EngineSetup.model_validate(setup)


def _initial(setup: EngineSetup, plan: MixturePlan) -> list[TaskMove]:
    prior = f"the {setup.mixture.prior.type} prior within the guards; nothing had been measured"
    moves = [
        TaskMove(task.name, weight, f"{task.name} has {weight:.1%}: {prior}.", "Not measured.", None, None)
        for task, weight in zip(setup.tasks, plan.weights, strict=True)
    ]
    return sorted(moves, key=lambda move: -move.weight)


def _moves(history: RunHistory, decision: DecisionRecord) -> list[TaskMove]:
    moves = []
    for made in sorted(decision.tasks, key=_move, reverse=True):
        signals = [one for one in history.signals[made.task] if one.step <= decision.plan.source_step]
        own = signals[-1] if signals and signals[-1].step == decision.plan.source_step else None
        before = signals[-2] if len(signals) > 1 else None
        why = sentence(made) if decision.held is None else f"{made.task} keeps {made.weight_after:.1%}."
        if own is not None:
            since = f" Changes are since step {before.step}." if before is not None else ""
            found = f"Measured at step {own.step}: {measured(own, before)}{since}"
        else:
            last = f"; last at step {signals[-1].step}: {measured(signals[-1], before)}" if signals else " at all yet."
            found = f"Not measured{last}"
        moves.append(TaskMove(made.task, made.weight_after, why, found, made, own))
    return moves


def _max_change(setup: EngineSetup, plan: MixturePlan, decision: DecisionRecord | None) -> float:
    """The step limit of a plan: that of the guards, or of the state it was decided in where that is tighter."""
    guards = Guards(setup, prior_weights(setup), stage=plan.stage)
    limit = guards.max_change(plan.effective_from_step / setup.total_steps)
    if decision is None:
        return limit
    return min(limit, setup.mixture.states.max_change(decision.state, late_max_change=guards.late_max_change))


def _move(made: TaskDecision) -> float:
    return abs(made.weight_after - made.weight_before)


def _held_by(decision: DecisionRecord | None) -> dict[str, int]:
    counts: dict[str, int] = {}
    for made in decision.tasks if decision is not None else ():
        if made.held_by:
            counts[made.held_by] = counts.get(made.held_by, 0) + 1
    return counts


def _stage(history: RunHistory, plan: MixturePlan) -> str:
    began = [event for event in history.events if event.kind == "stage" and not event.superseded]
    mine = [event.text for event in began if (event.plan_version or 0) <= plan.version]
    return mine[-1] if mine else "Stage 1, from the start of the run."


def _concerns(event: Event, plan: MixturePlan, step: int) -> bool:
    """Whether an event lies between the plan's evaluation and the step, and no restart undid it."""
    if event.superseded or event.kind in ("stage", "end"):
        return False
    return max(plan.source_step, 0) <= event.step <= step
