"""What another policy, other guards or other stages would have decided on the evidence of a finished run.

    record of the ledger ─► RunMemory of the run            (verified: it must decide what the ledger says)
                       └──► RunMemory of the altered setup  (applied: whatever it decides is taken)

The other engine sees the recorded signals and reports, keeps its own plans, memory, stages and step limit, and goes
back to its own checkpoints where the run restarted. It is the engine of a run: nothing of the decision is written
twice.

What it does not show: what would have happened. Had the other mixture been in force, the model, and with it every later
signal, would have been another one; the farther the two mixtures part, the less the later decisions mean.
"""

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from scheduler.errors import LedgerError
from scheduler.memory import RunMemory, setup_of
from scheduler.records import AttemptRecord, DecisionRecord, ForkRecord, Record
from scheduler.setup import EngineSetup

Alter = Callable[[EngineSetup], EngineSetup]


@dataclass(frozen=True, slots=True)
class PairedDecision:
    """The decision of a run on one evaluation, and what the other engine decided on it."""

    recorded: DecisionRecord
    other: DecisionRecord

    @property
    def total_variation(self) -> float:
        """Half the sum of absolute differences of the two plans' weights, in [0, 1]."""
        pairs = zip(self.recorded.plan.weights, self.other.plan.weights, strict=True)
        return 0.5 * sum(abs(ours - theirs) for ours, theirs in pairs)


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """A run's decisions beside another engine's. `setup` and `altered` are those in force at the end."""

    setup: EngineSetup
    altered: EngineSetup
    decisions: tuple[PairedDecision, ...]


def decide_otherwise(records: Iterable[Record], alter: Alter) -> Counterfactual:
    """Fold a ledger under its own setup and under `alter` of it; decisions that a restart undid are left out.

    Args:
        records: A whole ledger, oldest first.
        alter: The other setup, of the same tasks, rows, steps and boundaries; called again for the setup of a fork.

    Raises:
        LedgerError: The ledger is empty or contradicts itself.
        ReplayMismatchError: The run's own plans are not what its evidence gives.
        ConfigError: From `alter`, or because the altered setup does not fit the tasks.
    """
    own: RunMemory | None = None
    other: RunMemory | None = None
    decisions: dict[int, PairedDecision] = {}
    for record in records:
        if own is None or other is None:
            own = RunMemory(setup_of(record))
            other = RunMemory(alter(own.setup))
        own.fold(record)
        told = record
        if isinstance(record, ForkRecord):
            told = dataclasses.replace(record, setup=alter(own.setup).model_dump(mode="json"))
        made = other.apply(told)
        if isinstance(record, DecisionRecord) and isinstance(made, DecisionRecord):
            decisions[record.plan.version] = PairedDecision(record, made)
        if isinstance(record, AttemptRecord | ForkRecord):
            version = own.engine.plan.version
            decisions = {at: pair for at, pair in decisions.items() if at <= version}
    if own is None or other is None:
        raise LedgerError("the ledger is empty")
    return Counterfactual(own.setup, other.setup, tuple(decisions.values()))
