"""A real run whose tasks climb their difficulty levels: what is promoted, what is then drawn, what comes back."""

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from cluster.audit import audit
from cluster.replayed_stream import replayed_batches
from evalsvc.report.history import RunHistory
from scheduler.keeper import replay
from scheduler.ledger import read_ledger
from scheduler.records import DecisionRecord, IntervalRecord
from tests.unit.train.local_run import CrashError, Disturbances, LocalRun, local_run

STEPS, INTERVAL, LEVELS = 48, 3, 3


def write_levelled(folder: Path) -> list[Path]:
    """A task that says the same whatever it is asked, learnt in a few steps, and one of which nothing can be learnt."""
    rng = np.random.default_rng(3)
    paths = []
    for task in ("same", "noise"):
        rows = [
            {
                "instruction": task,
                "input": f"{number:03d}",
                "output": "x" if task == "same" else f"{rng.integers(10**6):06d}",
                "difficulty_factors": [number % LEVELS + 1, 1, 1, 1],
            }
            for number in range(90)
        ]
        path = folder / f"{task}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        paths.append(path)
    return paths


def levelled_run(folder: Path, name: str, data: list[Path]) -> LocalRun:
    return local_run(
        folder,
        name,
        data,
        data={"probes_per_task": 16, "test_per_task": 2},
        model={"hidden_size": 32},
        tasks={"same": {"base_weight": 0.85}, "noise": {"base_weight": 0.15}},
        stages=[{"name": "only"}],
        train={"steps": STEPS, "checkpoint_every_intervals": 3, "global_batch_size": 12, "micro_batch_size": 12},
        mixture={
            "policy": {"type": "static"},
            "guards": {"ceiling": 0.9},
            "curriculum": {"confidence": 0.8, "open_all_after": None},
        },
        evaluation={"max_new_tokens": 2, "sampled_probes": 1, "samples_per_probe": 2},
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_levelled(tmp_path_factory.mktemp("levelled"))


@pytest.fixture(scope="module")
def climbed(tmp_path_factory: pytest.TempPathFactory, data: list[Path]) -> LocalRun:
    run = levelled_run(tmp_path_factory.mktemp("curriculum"), "climbed", data)
    assert run.start().reason == "finished"
    return run


def decisions(run: LocalRun) -> list[DecisionRecord]:
    return [record for record in read_ledger(run.ledger) if isinstance(record, DecisionRecord)]


def test_a_learnt_task_is_promoted_after_five_evaluations_and_a_task_of_noise_stays(climbed: LocalRun) -> None:
    moves = [move for decision in decisions(climbed) for move in decision.levels]
    assert [(move.task, move.kind, move.window) for move in moves] == [
        ("same", "promoted", (1, 2)),
        ("same", "promoted", (2, 2)),
    ]
    assert all(move.num_evaluations == 5 and move.bound > move.threshold == 0.7 for move in moves)
    words = [sentence for decision in decisions(climbed) for sentence in decision.sentences if "promoted" in sentence]
    assert words[0].startswith("same is promoted to levels 2 and 3 of 3: ")
    assert "in 5 evaluations in a row" in words[0]
    assert audit(climbed.ledger).num_steps == STEPS


def test_after_a_promotion_the_stream_draws_the_higher_levels_and_replays_the_lower_ones(climbed: LocalRun) -> None:
    history = RunHistory.of(read_ledger(climbed.ledger))
    task = history.task_names.index("same")
    ends = np.cumsum(history.run_setup.level_sizes[task])
    drawn: dict[tuple[int, int], Counter[int]] = {}
    for batch, plan in replayed_batches(history):
        rows = batch.rows[batch.tasks == task]
        levels = np.searchsorted(ends, rows, side="right").tolist()
        drawn.setdefault(plan.windows[task], Counter()).update(levels)
    assert list(drawn) == [(0, 1), (1, 2), (2, 2)]
    assert set(drawn[0, 1]) == {0, 1}
    assert set(drawn[1, 2]) == {0, 1, 2}
    for window, below in (((1, 2), [0]), ((2, 2), [0, 1])):
        total = drawn[window].total()
        assert abs(sum(drawn[window][level] for level in below) - 0.2 * total) <= 1
    assert all(plan.windows[1 - task] == (0, 1) for plan in history.plans)


def test_a_run_that_crashed_between_promotions_climbs_as_the_undisturbed_one(
    climbed: LocalRun, tmp_path: Path, data: list[Path]
) -> None:
    first, second = (decision.plan.effective_from_step for decision in decisions(climbed) if decision.levels)
    crash_at = second - INTERVAL
    assert first < crash_at
    run = levelled_run(tmp_path, "crashed", data)
    with pytest.raises(CrashError):
        run.start(Disturbances(crash_at=crash_at))
    assert run.start().step == STEPS
    assert run.weights == climbed.weights
    assert decisions(run)[-1] == decisions(climbed)[-1]
    memory = replay(read_ledger(run.ledger))
    assert memory.engine.plan == decisions(climbed)[-1].plan


def test_counts_by_level_are_in_the_ledger_and_add_up(climbed: LocalRun) -> None:
    history = RunHistory.of(read_ledger(climbed.ledger))
    for signals in history.signals.values():
        for signal in signals:
            assert len(signal.level_probes) == LEVELS
            assert sum(signal.level_probes) == signal.num_probes == 16
            assert sum(signal.level_successes) == pytest.approx(signal.score * 16)
    reports = [record.report for record in read_ledger(climbed.ledger) if isinstance(record, IntervalRecord)]
    assert asdict(reports[-1])["step"] == STEPS
