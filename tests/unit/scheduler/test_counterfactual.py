"""Another engine on the same evidence: itself when nothing is altered, the policy's own run when only the past is."""

import dataclasses

import pytest

from scheduler.counterfactual import decide_otherwise
from scheduler.engine import HeatEngine
from scheduler.errors import LedgerError
from scheduler.policy_config import ExplicitPrior, OdmPolicy, Policy, StaticPolicy
from scheduler.records import (
    AttemptRecord,
    CheckpointRecord,
    DecisionRecord,
    ForkRecord,
    IntervalRecord,
    Record,
    SignalRecord,
)
from scheduler.setup import EngineSetup
from tests.unit.evalsvc.report import simulated_run


@pytest.fixture(scope="module")
def records() -> list[Record]:
    """A restart from step 50, a change of stage at 100, a late plan."""
    return simulated_run.simulated_records()


def under(policy: Policy, setup: EngineSetup) -> EngineSetup:
    mixture = setup.mixture.model_copy(update={"policy": policy})
    return setup.model_copy(update={"mixture": mixture, "stage_policies": (policy, policy)})


def test_with_nothing_altered_the_other_decisions_are_the_recorded_ones_bit_for_bit(records: list[Record]) -> None:
    found = decide_otherwise(records, lambda setup: setup)
    assert [pair.other for pair in found.decisions] == [pair.recorded for pair in found.decisions]
    assert {pair.total_variation for pair in found.decisions} == {0.0}


def test_decisions_that_a_restart_undid_are_left_out(records: list[Record]) -> None:
    versions = [pair.recorded.plan.version for pair in decide_otherwise(records, lambda setup: setup).decisions]
    assert versions == list(range(1, len(versions) + 1))


def test_the_other_decisions_are_those_of_an_engine_that_was_given_the_surviving_evidence(
    records: list[Record],
) -> None:
    found = decide_otherwise(records, lambda setup: under(OdmPolicy(), setup))
    saved = next(place for place, record in enumerate(records) if isinstance(record, CheckpointRecord))
    again = next(place for place, record in enumerate(records) if isinstance(record, AttemptRecord) and record.attempt)
    engine, weights = HeatEngine(found.altered), []
    for record in [*records[: saved + 1], *records[again:]]:
        match record:
            case AttemptRecord():
                engine.drop_pending()
            case IntervalRecord(report=report):
                engine.observe_interval(report)
            case SignalRecord(signal=signal):
                engine.observe(signal)
            case DecisionRecord(plan=plan):
                weights.append(engine.decide(plan.source_step)[0].plan.weights)
            case _:
                pass
    assert weights == [pair.other.plan.weights for pair in found.decisions]
    assert any(pair.total_variation > 0.01 for pair in found.decisions)


def test_a_static_mixture_stays_where_its_own_step_limit_lets_it_begin(records: list[Record]) -> None:
    found = decide_otherwise(records, lambda setup: under(StaticPolicy(), setup))
    initial = HeatEngine(found.altered).plan.weights
    assert {pair.other.plan.weights for pair in found.decisions} == {initial}


def test_the_step_limit_of_the_other_mixture_counts_from_its_own_plans(records: list[Record]) -> None:
    def skewed(setup: EngineSetup) -> EngineSetup:
        prior = ExplicitPrior(weights={"lcr": 9.0, "qa": 1.0, "style": 1.0, "safety": 1.0})
        return setup.model_copy(update={"mixture": setup.mixture.model_copy(update={"prior": prior})})

    before = HeatEngine(skewed(simulated_run.setup())).plan.weights
    for pair in decide_otherwise(records, skewed).decisions:
        now = pair.other.plan.weights
        assert 0.5 * sum(abs(a - b) for a, b in zip(now, before, strict=True)) <= 0.12 + 1e-9
        before = now


def test_after_a_fork_the_setup_of_the_fork_is_altered_too(records: list[Record]) -> None:
    taken = next(place for place, record in enumerate(records) if isinstance(record, CheckpointRecord))
    child = under(StaticPolicy(), simulated_run.setup())
    forked = [*records[: taken + 1], ForkRecord(step=50, setup=child.model_dump(mode="json"), changed=())]
    found = decide_otherwise(forked, lambda setup: under(OdmPolicy(), setup))
    assert (found.setup, found.altered) == (child, under(OdmPolicy(), child))
    assert [pair.recorded.plan.version for pair in found.decisions] == [1, 2]


def test_an_altered_ledger_and_an_empty_one_are_refused(records: list[Record]) -> None:
    with pytest.raises(LedgerError, match="empty"):
        decide_otherwise([], lambda setup: setup)
    with pytest.raises(LedgerError):
        decide_otherwise([dataclasses.replace(records[0], schema_version=1), *records[1:]], lambda setup: setup)
