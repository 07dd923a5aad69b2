"""What is told of a step is what the ledger says was decided for it, and nothing that a restart undid."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cluster.cli import main
from cluster.explain import explain_step
from cluster.views.explain_text import explanation_json, explanation_text
from evalsvc.report.history import RunHistory
from scheduler.errors import ConfigError, LedgerError
from scheduler.explain import BROUGHT_WITHIN_BOUNDS
from scheduler.keeper import HeatKeeper
from scheduler.ledger import LedgerWriter
from scheduler.records import AttemptRecord, ForkRecord, LateRecord, Record
from tests.unit.evalsvc.report import simulated_run
from tests.unit.scheduler.made import report, setup, signal


@pytest.fixture(scope="module")
def records() -> list[Record]:
    """Four tasks; restarted from step 50, stage 2 from step 100, the plan of step 125 late, signals refused."""
    return simulated_run.simulated_records()


@pytest.fixture
def run(tmp_path: Path, records: list[Record]) -> Path:
    return write(tmp_path, records)


def write(root: Path, records: list[Record]) -> Path:
    writer = LedgerWriter(root / "ledger" / "ledger.jsonl")
    for record in records:
        writer.append(record)
    writer.close()
    return root


def test_at_every_step_it_tells_the_plan_that_the_workers_trained_it_under(run: Path, records: list[Record]) -> None:
    history = RunHistory.of(records)
    for step in range(0, simulated_run.TOTAL, 5):
        trained = [boundary for boundary in history.boundaries if boundary.report.step <= step][-1]
        found = explain_step(run, step)
        assert found.plan == trained.plan
        assert found.in_force_from <= step < found.in_force_until
        assert {move.task: move.weight for move in found.tasks} == dict(
            zip(simulated_run.TASKS, trained.plan.weights, strict=True)
        )


def test_moves_come_largest_first_each_with_the_sentence_and_the_signals_of_its_decision(run: Path) -> None:
    found = explain_step(run, 110)
    sizes = [abs(move.decision.weight_after - move.decision.weight_before) for move in found.tasks if move.decision]
    assert sizes == sorted(sizes, reverse=True)
    assert found.moved == pytest.approx(sum(sizes) / 2)
    lcr = next(move for move in found.tasks if move.task == "lcr")
    assert lcr.decision is not None
    direction = "rises" if lcr.weight > lcr.decision.weight_before else "falls"
    assert lcr.why.startswith(f"lcr {direction}")
    assert lcr.signal is not None
    assert lcr.signal.step == found.plan.source_step
    assert f"score {lcr.signal.score:.3f} on 32 probes (+0.050)" in lcr.found


def test_what_was_late_refused_or_restarted_between_evaluation_and_step_is_told_and_nothing_else(run: Path) -> None:
    told = " ".join(explain_step(run, 130).events)
    assert "At step 125 the plan from step 100 was not ready in time" in told
    assert "was refused" in told
    assert "restarted" not in told
    assert "not ready in time" not in " ".join(explain_step(run, 110).events)
    assert "restarted (attempt 1)" in " ".join(explain_step(run, 50).events)


def test_guards_and_stage_are_told(run: Path) -> None:
    found = explain_step(run, 130)
    assert found.held_by["core hold"] == 1
    assert found.stage.startswith("Stage 2 began at step 100")
    assert explain_step(run, 60).stage.startswith("Stage 1")


def test_before_the_first_decision_the_prior_is_what_there_is_to_tell(run: Path) -> None:
    found = explain_step(run, 0)
    assert (found.plan.version, found.moved, found.held) == (0, 0.0, None)
    assert "the initial plan" in explanation_text(found)
    assert all("temperature prior" in move.why for move in found.tasks)


def test_of_a_held_plan_the_reason_is_told_and_no_move(tmp_path: Path) -> None:
    keeper = HeatKeeper.open(tmp_path / "ledger" / "ledger.jsonl", setup())
    keeper.begin_attempt("first", 0)
    keeper.observe_interval(report([0, 0, 0], step=0))
    keeper.evaluation_done(0, 0)
    keeper.observe_interval(report([100, 100, 200], step=25, plan_version=1))
    found = explain_step(tmp_path, 30)
    assert found.held == "no task was measured in this evaluation"
    assert f"nothing moved: {found.held}" in explanation_text(found)
    assert all("keeps" in move.why and "Not measured at all yet." in move.found for move in found.tasks)


@pytest.mark.parametrize(
    ("state", "states"),
    [
        ("late", {"late_after": 0.05}),
        ("transition", {"transition_intervals": 5, "transition_max_change": 0.02}),
        ("stage 2", {}),
    ],
)
def test_the_step_limit_is_that_of_the_state_the_plan_was_decided_in(
    tmp_path: Path, state: str, states: dict[str, Any]
) -> None:
    run = setup(
        total_steps=1000,
        boundary={"type": "step", "step": 50},
        states=states,
        guards={"max_change": 0.3, "late_max_change": 0.02},
    )
    keeper = HeatKeeper.open(tmp_path / "ledger" / "ledger.jsonl", run)
    attempt = keeper.begin_attempt("first", 0)
    for number, step in enumerate((0, 25, 50)):
        keeper.observe_interval(report([40 * number, 160 * number, 200 * number], step=step, plan_version=number))
        for task, score in (("a", 0.0), ("b", 0.9), ("c", 0.9)):
            keeper.observe(signal(task, step=step, score=score, plan_version=number))
        keeper.evaluation_done(attempt, step)
    keeper.observe_interval(report([150, 500, 550], step=75, plan_version=3))
    found = explain_step(tmp_path, 80)
    assert keeper.memory.engine.progression.states.state == state
    assert found.max_change == pytest.approx(0.279 if state == "stage 2" else 0.02)
    assert found.moved <= found.max_change + 1e-9
    assert f"the step limit allows {found.max_change:.1%}" in explanation_text(found)


def test_a_plan_that_new_bounds_moved_beyond_the_step_limit_says_so(tmp_path: Path) -> None:
    cards = {"a": {"base_weight": 0.6}, "b": {"base_weight": 0.2}, "c": {"base_weight": 0.2}}
    own = {"ceiling": 0.4, "max_change": 0.001}
    run = setup(cards=cards, boundary={"type": "step", "step": 25}, stage_guards=({}, own))
    keeper = HeatKeeper.open(tmp_path / "ledger" / "ledger.jsonl", run)
    attempt = keeper.begin_attempt("first", 0)
    for number, step in enumerate((0, 25)):
        keeper.observe_interval(report([100 * number] * 3, step=step, plan_version=number))
        for task, score in (("a", 0.0), ("b", 0.9), ("c", 0.9)):
            keeper.observe(signal(task, step=step, score=score, plan_version=number))
        keeper.evaluation_done(attempt, step)
    before, after = explain_step(tmp_path, 10), explain_step(tmp_path, 30)
    assert BROUGHT_WITHIN_BOUNDS not in before.events
    assert after.plan.stage == 2
    assert after.moved > 0.15 > after.max_change
    assert BROUGHT_WITHIN_BOUNDS in after.events


def test_what_a_restart_undid_is_not_told_under_the_plan_that_came_in_its_place(
    tmp_path: Path, records: list[Record]
) -> None:
    undone_at = simulated_run.CHECKPOINT_STEP + simulated_run.INTERVAL
    restarted = [place for place, record in enumerate(records) if isinstance(record, AttemptRecord)][1]
    late = LateRecord(step=undone_at, awaited_step=simulated_run.CHECKPOINT_STEP, kept_version=2)
    run = write(tmp_path, [*records[:restarted], late, *records[restarted:]])
    assert any(event.superseded for event in RunHistory.of([*records[:restarted], late, *records[restarted:]]).events)
    assert "not ready in time" not in " ".join(explain_step(run, undone_at).events)


@pytest.mark.parametrize("step", [-1, 151, 10**9])
def test_a_step_the_run_has_not_come_to_is_refused_with_the_steps_it_has(run: Path, step: int) -> None:
    with pytest.raises(
        ConfigError, match=rf"--step {step}: the run ended at step 150 of 150; give a step from 0 to 150"
    ):
        explain_step(run, step)


def test_a_run_that_goes_on_is_explained_as_far_as_it_has_come(tmp_path: Path, records: list[Record]) -> None:
    run = write(tmp_path, records[:30])
    reached = RunHistory.of(records[:30]).step
    assert explain_step(run, reached + simulated_run.INTERVAL - 1).in_force_from == reached
    with pytest.raises(ConfigError, match=f"has come to step {reached}"):
        explain_step(run, reached + simulated_run.INTERVAL)


def test_a_folder_without_a_ledger_and_a_task_that_is_none_are_refused(tmp_path: Path, run: Path) -> None:
    with pytest.raises(LedgerError, match="no ledger here"):
        explain_step(tmp_path / "nowhere", 0)
    with pytest.raises(ConfigError, match=r"--task maths: .*lcr, qa, style, safety"):
        explain_step(run, 0, task="maths")


def test_a_step_before_a_fork_is_explained_under_the_setup_of_the_parent(tmp_path: Path, records: list[Record]) -> None:
    taken = next(place for place, record in enumerate(records) if type(record).__name__ == "CheckpointRecord")
    static = simulated_run.setup().model_dump(mode="json") | {"stage_policies": [{"type": "static"}] * 2}
    fork = ForkRecord(step=50, setup=static, changed=("mixture.policy: heat → static",))
    run = write(tmp_path, [*records[: taken + 1], fork])
    assert explain_step(run, 30).policy == "heat"


def test_the_command_prints_words_for_one_task_and_json_for_all(run: Path) -> None:
    words = CliRunner().invoke(main, ["explain", str(run), "--step", "130", "--task", "style"])
    assert words.exit_code == 0, words.output
    assert re.search(r"style (falls|rises|stays)", words.stdout)
    assert not re.search(r"lcr (falls|rises|stays)", words.stdout)
    data = CliRunner().invoke(main, ["explain", str(run), "--step", "130", "--json"])
    assert json.loads(data.stdout) == json.loads(explanation_json(explain_step(run, 130)))
