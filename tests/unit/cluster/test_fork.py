"""A fork goes on from another run's checkpoint: the same run where nothing changed, explained where something did."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from ray.train.v2._internal.execution.train_fn_utils import LocalTrainFnUtils, set_train_fn_utils

from cluster.audit import audit
from cluster.cli import main
from cluster.config import LaunchConfig, RunConfig
from cluster.fork import Fork, changes, resolve_fork
from cluster.run_directory import RunDirectory
from evalsvc.report.model import build_report
from evalsvc.report.schema import RowCounts, RunFacts
from scheduler.engine import HeatEngine
from scheduler.errors import ConfigError, DamagedCheckpointError, DataError, LedgerError, RunDirectoryError
from scheduler.ledger import read_ledger
from scheduler.plan import MixturePlan
from scheduler.records import AttemptRecord, DecisionRecord, ForkRecord, IntervalRecord, RunRecord
from tests.integration.tiny_run import write_tasks
from tests.unit.train.local_run import STEPS, CrashError, Disturbances, LocalRun, local_run, small_tasks
from train.coordination import PlanAnswer
from train.loop import Worker

OTHER: dict[str, Any] = {"mixture": {"policy": {"type": "target_gap"}, "guards": {"max_change": 0.5}}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return small_tasks(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory, data: list[Path]) -> LocalRun:
    """Finished, with checkpoints at 6 and 12."""
    run = local_run(tmp_path_factory.mktemp("fork"), "parent", data)
    run.start()
    return run


def forked(parent: LocalRun, folder: Path, data: list[Path], *, step: int = 6, **settings: Any) -> LocalRun:
    """Planted, not started."""
    run = local_run(folder, "fork", data, **settings)
    fork = Fork(parent=RunDirectory(parent.folder), step=step, changed=changes(parent.config, run.config))
    fork.plant(RunDirectory(run.folder), run.inputs.engine)
    return run


def decisions(run: LocalRun) -> list[DecisionRecord]:
    """Those that hold, by version."""
    made = {record.plan.version: record for record in read_ledger(run.ledger) if isinstance(record, DecisionRecord)}
    return [made[version] for version in sorted(made)]


def in_force(run: LocalRun) -> dict[int, MixturePlan]:
    """The plan the workers applied at each boundary."""
    made = {
        record.plan.version: record.plan
        for record in read_ledger(run.ledger)
        if isinstance(record, RunRecord | DecisionRecord)
    }
    reports = [record.report for record in read_ledger(run.ledger) if isinstance(record, IntervalRecord)]
    return {report.step: made[report.plan_version] for report in reports}


@pytest.mark.parametrize("step", [6, 12])
def test_a_fork_that_changes_nothing_is_the_parent_bit_for_bit(
    step: int, parent: LocalRun, tmp_path: Path, data: list[Path]
) -> None:
    fork = forked(parent, tmp_path, data, step=step)
    assert fork.start().step == STEPS
    assert fork.weights == parent.weights
    assert decisions(fork) == decisions(parent)
    assert audit(fork.ledger).num_samples == audit(parent.ledger).num_samples


def test_a_fork_leaves_its_parent_as_it_was(parent: LocalRun, tmp_path: Path, data: list[Path]) -> None:
    before = {path: path.read_bytes() for path in parent.folder.rglob("*") if path.is_file()}
    forked(parent, tmp_path, data, **OTHER).start()
    assert {path: path.read_bytes() for path in parent.folder.rglob("*") if path.is_file()} == before


def test_a_fork_under_another_policy_is_the_run_from_scratch_that_followed_its_plans(
    parent: LocalRun, tmp_path: Path, data: list[Path]
) -> None:
    fork = forked(parent, tmp_path, data, **OTHER)
    fork.start()
    plans = in_force(fork)
    assert plans[6] == in_force(parent)[6]
    assert plans[12].weights != in_force(parent)[12].weights
    assert fork.weights != parent.weights
    scratch = dataclasses.replace(fork, folder=tmp_path / "scratch")
    follow(scratch, plans, first=HeatEngine(parent.inputs.engine).plan)
    assert scratch.weights == fork.weights


@pytest.mark.parametrize("mode", ["lag1", "sync"])
def test_a_fork_may_change_stages_mode_steps_and_learning_rate_and_still_replays(
    mode: str, parent: LocalRun, tmp_path: Path, data: list[Path]
) -> None:
    fork = forked(
        parent,
        tmp_path,
        data,
        mixture={"mode": mode, "policy": {"type": "odm"}},
        train={"steps": 20, "learning_rate": 0.005, "weight_decay": 0.2},
        stages=[{"name": "only"}],
    )
    assert fork.start().step == 20
    proved = audit(fork.ledger)
    assert (proved.num_steps, sum(proved.num_samples), proved.num_attempts) == (20, 120, 2)
    report = build_report(read_ledger(fork.ledger), FACTS)
    assert (report.num_steps, report.total_steps, report.mode) == (20, 20, mode)
    (event,) = [event for event in report.events if event.kind == "fork"]
    assert "train.learning_rate: 0.02 → 0.005" in event.text
    assert f"train.steps: {STEPS} → 20" in event.text
    group = fork.store.read(18).optimizer["param_groups"][0]
    assert group["weight_decay"] == 0.2


def test_a_crashed_fork_goes_on_and_a_fork_can_be_forked_again(
    parent: LocalRun, tmp_path: Path, data: list[Path]
) -> None:
    whole = forked(parent, tmp_path / "a", data, **OTHER)
    whole.start()
    broken = forked(parent, tmp_path / "b", data, **OTHER)
    with pytest.raises(CrashError):
        broken.start(Disturbances(crash_at=9))
    broken.start()
    assert broken.weights == whole.weights
    assert audit(broken.ledger).num_attempts == 3
    again = forked(whole, tmp_path / "c", data, step=12, **OTHER)
    again.start()
    assert again.weights == whole.weights
    assert [record.step for record in read_ledger(again.ledger) if isinstance(record, ForkRecord)] == [6, 12]


def test_a_fork_without_an_intact_checkpoint_does_not_begin_at_step_zero(
    parent: LocalRun, tmp_path: Path, data: list[Path]
) -> None:
    fork = forked(parent, tmp_path, data)
    (fork.store.storage.path(6) / "optimizer.pt").unlink()
    with pytest.raises(LedgerError, match="forked from another at step 6"):
        fork.start()
    assert not any(record.attempt for record in read_ledger(fork.ledger) if isinstance(record, AttemptRecord))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"mixture": {"interval_steps": 2}}, "interval_steps differs.*give mixture.interval_steps=3"),
        ({"train": {"steps": 6}, "stages": [{"name": "only"}]}, "total_steps 6 is not beyond step 6"),
        ({"train": {"global_batch_size": 3}}, "global_batch_size differs"),
        ({"mixture": {"weight_unit": "tokens"}}, "mixture.weight_unit differs"),
        ({"tasks": {"copy": {"target_score": 0.5}}}, "tasks differs"),
    ],
)
def test_what_draws_the_samples_must_stay(
    settings: dict[str, Any], said: str, parent: LocalRun, tmp_path: Path, data: list[Path]
) -> None:
    with pytest.raises(ConfigError, match=said):
        forked(parent, tmp_path, data, **settings)
    assert not (tmp_path / "fork").exists()


def test_a_fork_may_arrange_the_same_rows_anew_but_not_train_on_others(
    parent: LocalRun, tmp_path: Path, data: list[Path]
) -> None:
    root = kept_run(parent)
    RunDirectory(root).bind_data(parent.inputs.prepared.path)
    fork = Fork(parent=RunDirectory(root), step=6, changed=())
    arranged = forked(parent, tmp_path, data, stages=[{"name": "only", "arrangement": {"contrast": 1.0}}])
    assert arranged.inputs.prepared.path.name != parent.inputs.prepared.path.name
    fork.check_rows(arranged.inputs.prepared.path)
    arranged.start()
    assert audit(arranged.ledger).num_steps == STEPS
    assert arranged.store.read(12).manifest.num_arranged[2] > 0

    other = local_run(tmp_path, "other", write_tasks(tmp_path / "data", num_rows=41))
    with pytest.raises(DataError, match="the training rows of copy are not those"):
        fork.check_rows(other.inputs.prepared.path)


def test_a_damaged_checkpoint_or_one_of_another_run_is_not_forked(tmp_path: Path, data: list[Path]) -> None:
    broken = local_run(tmp_path, "broken", data)
    broken.start(Disturbances(stop_at=6))
    other = local_run(tmp_path, "other", data, train={"learning_rate": 0.2})
    other.start(Disturbances(stop_at=6))
    content = other.store.read(6)
    store = broken.store
    store.write(content.manifest, weights=content.weights, optimizer=content.optimizer)
    assert store.drain(10)
    with pytest.raises(LedgerError, match="is not one of its ledger's run"):
        forked(broken, tmp_path, data)
    (broken.store.storage.path(6) / "manifest.json").unlink()
    with pytest.raises(DamagedCheckpointError):
        forked(broken, tmp_path, data)


def kept_run(parent: LocalRun) -> Path:
    """The parent with the files a command finds a run by."""
    directory = RunDirectory(parent.folder)
    if not directory.manifest.exists():
        named = parent.config.output.model_copy(update={"name": "parent"})
        made = RunDirectory.create(
            parent.config.model_copy(update={"output": named.model_copy(update={"dir": parent.folder / "made"})}),
            LaunchConfig(num_workers=2),
        )
        for path in (made.config, made.launch, made.manifest):
            path.rename(parent.folder / path.name)
    return parent.folder


def resolved(spec: str, *overrides: str, launch: tuple[str, ...] = ()) -> tuple[Fork, RunConfig, LaunchConfig]:
    return resolve_fork(spec, files=[], overrides=overrides, launch=[], launch_overrides=launch)


def test_a_fork_takes_its_parents_configuration_with_settings_over_it(parent: LocalRun) -> None:
    root = kept_run(parent)
    fork, config, launch = resolved(f"{root}@6", "mixture.policy.type=static", launch=("max_failures=1",))
    assert fork == Fork(
        RunDirectory(root), 6, ("mixture.policy: heat → static",), origin=str(RunDirectory(root).checkpoints)
    )
    assert config.output.name == "parent-fork-6"
    assert config.data == parent.config.data
    assert (launch.num_workers, launch.max_failures) == (2, 1)
    assert resolved(f"{root}@12", "output.name=mine")[1].output.name == "mine"
    assert resolved(f"{root}@12")[0].changed == ()


def test_a_step_without_a_checkpoint_is_refused_with_those_there_are(parent: LocalRun) -> None:
    with pytest.raises(RunDirectoryError, match=r"no checkpoint at step 9; its checkpoints are at: 6, 12"):
        resolved(f"{kept_run(parent)}@9")


@pytest.mark.parametrize("spec", ["run", "run@", "@3", "run@x", "run@-1"])
def test_a_fork_is_named_by_run_and_step(spec: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"--fork {spec}: give RUN@STEP")):
        resolved(spec)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="is not the directory of a run"):
        resolved(f"{tmp_path}@3")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seed=1", "seed: 0 → 1"),
        ("model.hidden_size=32", "model.hidden_size: 16 → 32"),
        ("data.probes_per_task=5", "data.probes_per_task: 4 → 5"),
        ("train.global_batch_size=12", "train.global_batch_size: 6 → 12"),
    ],
)
def test_a_setting_that_must_stay_is_named_with_both_values(override: str, said: str, parent: LocalRun) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        resolved(f"{kept_run(parent)}@6", override)


def test_the_command_shows_what_a_fork_would_be_and_refuses_it_beside_resume(parent: LocalRun) -> None:
    root = kept_run(parent)
    shown = CliRunner().invoke(main, ["run", "--fork", f"{root}@6", "mixture.policy.type=static", "--dry-run"])
    assert shown.exit_code == 0, shown.output
    assert "parent-fork-6" in shown.stdout
    assert "static" in shown.stdout
    refused = CliRunner().invoke(main, ["run", "--resume", str(root), "--fork", f"{root}@6"])
    assert refused.exit_code == 2
    missing = CliRunner().invoke(main, ["run", "--fork", f"{root}@9"])
    assert (missing.exit_code, "its checkpoints are at: 6, 12" in missing.stderr) == (2, True)


FACTS = RunFacts(
    run_name="fork",
    model="tiny",
    num_workers=1,
    base_model=None,
    has_adapter=False,
    wall_seconds={},
    test_scores={},
    rows={name: RowCounts(train=1, probe=1, test=1) for name in ("copy", "last", "noise")},
)


@dataclass(frozen=True, slots=True)
class Script:
    """A coordinator, and its factory, that hands out given plans and measures nothing."""

    plans: Mapping[int, MixturePlan]

    def open(self) -> "Script":
        return self

    def begin(self, step: int, engine_state: dict[str, Any] | None, refused: tuple[str, ...]) -> int:
        assert (step, engine_state, refused) == (0, None, ())
        return 0

    def plan_for(self, step: int) -> PlanAnswer:
        return PlanAnswer(plan=self.plans[step], stop=False)

    def checkpoint(self, step: int) -> dict[str, Any]:
        return {"step": step}

    def publish(self, **_: Any) -> None: ...
    def settle(self) -> None: ...
    def note_export(self, _step: int, _why: str) -> None: ...
    def report_served(self, _: Any) -> None: ...
    def report(self, _: Any) -> None: ...
    def pulse(self, **_: Any) -> None: ...
    def finish(self, **_: Any) -> None: ...


def follow(run: LocalRun, plans: Mapping[int, MixturePlan], *, first: MixturePlan) -> None:
    """Train from step 0 under `plans`, by boundary."""
    job = dataclasses.replace(run.job(Disturbances()), initial_plan=first, coordinator=Script(plans))
    set_train_fn_utils(LocalTrainFnUtils(experiment_name="scripted"))
    try:
        Worker(job).run()
    finally:
        set_train_fn_utils(None)
