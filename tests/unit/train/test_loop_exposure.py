"""Whole runs with everything a plan can ask for besides sample weights: contexts, difficulty, token shares, caps."""

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.audit import audit
from scheduler.ledger import read_ledger
from scheduler.records import DecisionRecord, IntervalRecord, RunRecord
from scheduler.signals import IntervalReport
from tests.unit.train.local_run import STEPS, CrashError, Disturbances, LocalRun, local_run
from train.data.row import DIFFICULTY_FACTORS

EVERYTHING: dict[str, Any] = {
    "mixture": {"weight_unit": "tokens"},
    "stages": [
        {"name": "first", "until": {"type": "step", "step": 6}, "difficulty": {"last": 1}},
        {
            "name": "last",
            "difficulty": {"first": 2, "last": 3, "replay_ratio": 0.25},
            "arrangement": {"single": 2, "chain": 1, "contrast": 1, "own_answers_at": 0.5},
        },
    ],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two tasks of chains of two steps, of three levels of difficulty."""
    folder = tmp_path_factory.mktemp("chains")
    for task in ("sum", "spell"):
        rows = []
        for n in range(40):
            factors = dict.fromkeys(DIFFICULTY_FACTORS, 1 + n % 3)
            first = {"id": f"{n}", "instruction": f"{task} {n}", "output": "ab"[n % 2] * (1 + n % 4)}
            second = {"id": f"{n}b", "parent_id": f"{n}", "instruction": f"{task} again {n}", "output": f"{n % 7}"}
            rows += [{**row, "difficulty_factors": factors} for row in (first, second)]
        (folder / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return [folder / "sum.jsonl", folder / "spell.jsonl"]


def reports(run: LocalRun) -> list[IntervalReport]:
    return [record.report for record in read_ledger(run.ledger) if isinstance(record, IntervalRecord)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, data: list[Path]) -> LocalRun:
    run = local_run(tmp_path_factory.mktemp("exposure"), "undisturbed", data, **EVERYTHING)
    assert run.start().reason == "finished"
    return run


def test_every_plan_carries_what_its_stage_asks_for(undisturbed: LocalRun) -> None:
    plans = [
        record.plan for record in read_ledger(undisturbed.ledger) if isinstance(record, RunRecord | DecisionRecord)
    ]
    of_stage = {plan.stage: plan for plan in plans}
    assert of_stage[1].windows == ((0, 0), (0, 0))
    assert (of_stage[1].arrangement, of_stage[1].replay_ratio) == ((1.0, 0.0, 0.0), 0.0)
    assert of_stage[2].windows == ((1, 2), (1, 2))
    assert (of_stage[2].arrangement, of_stage[2].replay_ratio) == ((0.5, 0.25, 0.25), 0.25)


def test_contexts_are_trained_from_the_stage_that_gives_them_a_share(undisturbed: LocalRun) -> None:
    first, last = reports(undisturbed)[2], reports(undisturbed)[-1]
    assert (first.step, first.num_arranged) == (6, (36, 0, 0))
    assert sum(last.num_arranged) == 6 * STEPS
    _, chain, contrast = last.num_arranged
    assert 0 < chain <= contrast  # every row has a relative, every other one a parent


def test_the_ledger_proves_a_run_with_everything_on(undisturbed: LocalRun) -> None:
    proved = audit(undisturbed.ledger)
    assert (proved.num_steps, sum(proved.num_samples)) == (STEPS, 6 * STEPS)
    last = reports(undisturbed)[-1]
    assert last.num_tokens[0] != last.num_samples[0]


def test_a_run_with_everything_on_goes_on_after_a_crash_as_if_nothing_had_happened(
    undisturbed: LocalRun, tmp_path: Path, data: list[Path]
) -> None:
    run = local_run(tmp_path, "crashed", data, **EVERYTHING)
    with pytest.raises(CrashError):
        run.start(Disturbances(crash_at=9))
    assert run.start().step == STEPS
    assert run.weights == undisturbed.weights
    assert reports(run)[-1].num_arranged == reports(undisturbed)[-1].num_arranged
    assert audit(run.ledger).num_samples == audit(undisturbed.ledger).num_samples


def test_a_task_whose_rows_are_used_up_leaves_its_share_to_the_others(tmp_path: Path, data: list[Path]) -> None:
    cards = {"sum": {"repetition": {"max_epochs": 0.25}}}
    run = local_run(tmp_path, "capped", data, tasks=cards)
    cap = run.inputs.engine.num_rows[0] // 4
    assert run.start().step == STEPS
    assert reports(run)[-1].num_samples == (cap, 6 * STEPS - cap)
    assert audit(run.ledger).num_steps == STEPS


def test_a_task_that_may_end_the_run_ends_it_where_its_rows_are_used_up(tmp_path: Path, data: list[Path]) -> None:
    cards = {"sum": {"repetition": {"max_epochs": 0.25, "then": "stop"}}}
    run = local_run(tmp_path, "ended", data, tasks=cards)
    result = run.start()
    assert result.reason == "finished"
    assert result.step < STEPS
    last = reports(run)[-1]
    assert last.step == result.step
    assert last.num_samples[0] <= run.inputs.engine.num_rows[0] // 4
    assert audit(run.ledger).num_steps == result.step
