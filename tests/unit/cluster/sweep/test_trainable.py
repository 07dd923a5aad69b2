"""What a trial tells Tune while it trains is what its ledger says, each evaluation once."""

from pathlib import Path

import pytest

from cluster.sweep.objective import Score
from cluster.sweep.results import objectives_of, trial_result
from cluster.sweep.trainable import Evaluations, member_name
from evalsvc.report.history import RunHistory
from scheduler.ledger import read_ledger
from tests.unit.train.local_run import CrashError, Disturbances, LocalRun, local_run, small_tasks


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> LocalRun:
    """Trained to step 9, then again from its checkpoint at 6 to the end."""
    folder = tmp_path_factory.mktemp("trial")
    run = local_run(folder, "run", small_tasks(folder))
    with pytest.raises(CrashError):
        run.start(Disturbances(crash_at=9))
    run.start()
    return run


def test_every_evaluation_is_told_once_though_a_restart_repeats_some(crashed: LocalRun) -> None:
    evaluations = Evaluations(("macro", "worst"))
    told = [found for record in read_ledger(crashed.ledger) if (found := evaluations.concluded(record)) is not None]
    assert [step for step, _ in told] == [0, 3, 6, 9, 12]
    history = RunHistory.of(read_ledger(crashed.ledger))
    for step, objectives in told:
        signals = {task: one for task, all_of in history.signals.items() for one in all_of if one.step == step}
        scores = {task: Score(signal.score, signal.num_probes) for task, signal in signals.items()}
        expected = objectives_of(scores, history.run_setup.tasks, ("macro", "worst"))
        assert objectives == {name: estimate.value for name, estimate in expected.items()}


def test_a_member_that_goes_on_tells_only_what_is_new(crashed: LocalRun) -> None:
    evaluations = Evaluations(("macro",), reported_step=6)
    told = [found for record in read_ledger(crashed.ledger) if (found := evaluations.concluded(record)) is not None]
    assert [step for step, _ in told] == [9, 12]


def test_the_end_of_a_trial_is_its_last_evaluation(crashed: LocalRun, tmp_path: Path) -> None:
    from cluster.run_directory import RunDirectory

    found = trial_result(RunDirectory(crashed.folder), name="t", values={}, names=("macro",))
    assert (found.step, found.status) == (14, "unfinished")
    last = {task: all_of[-1].score for task, all_of in RunHistory.of(read_ledger(crashed.ledger)).signals.items()}
    assert {task: score.value for task, score in found.scores.items()} == last
    nothing = trial_result(RunDirectory(tmp_path / "none"), name="t", values={}, names=("macro",))
    assert (nothing.status, nothing.objectives) == ("not started", {})


def test_a_member_is_known_by_tunes_number_of_it() -> None:
    assert [member_name(one) for one in ("0b524_00000", "0b524_00012")] == ["trial-000", "trial-012"]
