"""What the engine knows of the samples served when it decides: all of them, in the real loop and in the simulator."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from cluster.audit import audit
from scheduler.ledger import read_ledger
from scheduler.memory import RunMemory, setup_of
from scheduler.records import DecisionRecord, IntervalRecord, Record, ServedRecord
from scheduler.setup import EngineSetup, Mode
from scheduler.simulator.learner import LearnerConfig, TaskLearner
from scheduler.simulator.loop import simulate
from tests.unit.scheduler.made import setup
from tests.unit.train.local_run import Disturbances, local_run, small_tasks

MODES: tuple[Mode, ...] = ("lag1", "sync")


def known_at_decisions(records: Iterable[Record]) -> tuple[EngineSetup, dict[int, float]]:
    """The samples of all tasks that the engine counts when it decides on a step, by step."""
    known: dict[int, float] = {}
    memory: RunMemory | None = None
    for record in records:
        memory = memory or RunMemory(setup_of(record))
        memory.fold(record)
        if isinstance(record, DecisionRecord):
            known[record.plan.source_step] = float(memory.engine.history.counted.sum())
    assert memory is not None
    return memory.setup, known


def assert_all_served_are_known(records: Iterable[Record]) -> None:
    made, known = known_at_decisions(records)
    assert len(known) > 2
    assert known == {step: step * made.global_batch_size for step in known}


@pytest.mark.parametrize("mode", MODES)
def test_a_decision_knows_all_that_was_trained_before_its_evaluation(mode: Mode, tmp_path: Path) -> None:
    run = local_run(tmp_path, "run", small_tasks(tmp_path), mixture={"mode": mode})
    run.start()
    records = list(read_ledger(run.ledger))
    assert_all_served_are_known(records)
    assert any(isinstance(record, ServedRecord) for record in records) == (mode == "sync")
    assert audit(run.ledger).num_steps == run.config.train.steps


def test_what_was_told_before_and_after_a_decision_differs_in_the_plan_alone(tmp_path: Path) -> None:
    run = local_run(tmp_path, "run", small_tasks(tmp_path), mixture={"mode": "sync"})
    run.start(Disturbances(stop_at=6))
    run.start()
    records = list(read_ledger(run.ledger))
    after = {record.report.step: record.report for record in records if isinstance(record, IntervalRecord)}
    before = [record.report for record in records if isinstance(record, ServedRecord)]
    assert before
    for report in before:
        same = after[report.step]
        assert (report.num_samples, report.sequence_hash) == (same.num_samples, same.sequence_hash)
        assert report.plan_version < same.plan_version


@pytest.mark.parametrize("mode", MODES)
def test_so_does_a_decision_in_a_simulated_run(mode: Mode) -> None:
    written: list[Record] = []
    learner = LearnerConfig(tasks={name: TaskLearner() for name in ("a", "b", "c")})
    simulate(setup(total_steps=200, num_rows=[2000] * 3, mode=mode), learner, seed=0, on_record=written.append)
    assert_all_served_are_known(written)
