"""The driver: the one place where actors, workers and handles are created and tied together.

    inputs ─► Ray ─► engine actor, evaluation actor ─► TorchTrainer.fit (a thread) ◄─ watch (this thread) ─► finish

Actors are owned by the driver and die with it; everything that must outlive it lies in the run directory.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

import ray
import ray.train
from ray.train.torch import TorchTrainer

from cluster.actors import Evaluation, await_engine, start_engine, start_evaluation
from cluster.addresses import why_cluster_is_silent
from cluster.config import LaunchConfig, RunConfig
from cluster.coordinator import RayCoordinatorFactory
from cluster.placement import (
    Node,
    WorkerGroup,
    check_nodes,
    check_resources,
    described_nodes,
    local_cpus,
    worker_groups,
)
from cluster.run_directory import RunDirectory
from cluster.setup import Inputs
from cluster.views.run_view import RunView
from cluster.watch import Watch
from cluster.worker_group import explained, make_trainer, start_timeout_s
from evalsvc.actor import EvaluationJob
from evalsvc.evaluator import FinalScore
from scheduler.engine import HeatEngine
from scheduler.errors import ConfigError, ResourceError, RunFailedError
from scheduler.ledger import read_ledger, write_setup
from scheduler.records import AttemptRecord, CheckpointRecord, DecisionRecord, RollbackRecord
from train.checkpoint_storage import storage_at
from train.worker_job import WorkerJob, WorkerResult

_RAY_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended, its scores on rows held out until then, and the seconds each part took."""

    worker: WorkerResult
    num_workers: int
    test: list[FinalScore] | None
    selection: list[FinalScore] | None = None
    wall_s: dict[str, float] = field(default_factory=dict)


@contextmanager
def ray_cluster(launch: LaunchConfig, namespace: str) -> Iterator[None]:
    """Connect to the configured cluster, or start Ray on this machine; disconnect at the end.

    Raises:
        ResourceError: No cluster answers at the address.
    """
    for name, value in _RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if "RAY_AUTH_MODE" not in os.environ:  # Ray then turns token authentication on, and warns that it did
        logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    address = launch.address or os.environ.get("RAY_ADDRESS")
    if not ray.is_initialized() and address is not None and (why := why_cluster_is_silent(address)):
        raise ResourceError(
            f"launch.address: no Ray cluster could be reached: {why}; is it up, and the port the head's?"
        )
    common: dict[str, Any] = {
        "namespace": namespace,
        "logging_level": launch.log_level.upper(),
        "log_to_driver": launch.log_level in ("debug", "info"),
        "runtime_env": {"env_vars": {"OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}},
    }
    if ray.is_initialized():
        yield
        return
    try:
        if address is None:
            ray.init(address="local", num_cpus=local_cpus(), include_dashboard=launch.dashboard, **common)
        else:
            ray.init(address=address, **common)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ResourceError(
            f"launch.address: no Ray cluster could be reached at {address or 'this machine'}: {error}"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


class Driver:
    """One run on a connected Ray cluster."""

    def __init__(
        self, *, config: RunConfig, launch: LaunchConfig, directory: RunDirectory, inputs: Inputs, namespace: str
    ) -> None:
        self.config, self.launch, self.directory, self.inputs = config, launch, directory, inputs
        self.namespace = namespace
        name = directory.root.name
        self.engine_name, self.evaluator_name = f"heat-{name}", f"evaluation-{name}"
        self.groups = _checked_groups(launch)

    def run(self, view: RunView) -> Outcome:
        """Train to the end, or until Ctrl-C or SIGTERM, then test.

        Raises:
            ray.train.TrainingFailedError: The workers failed more often than `launch.max_failures`.
            RunFailedError: They found what would happen again, such as a diverged training; or they could not be
                placed, or the evaluation could not start or score the result.
            ResourceError: The engine could not start.
        """
        started = time.perf_counter()
        engine, evaluation = self._start_actors()
        self.directory.update_manifest(status="running")
        storage_at(self.directory.checkpoint_place(self.config)).make()
        actors_s = time.perf_counter() - started
        result = self._fit(engine, evaluation, view)
        if result.reason == "failed":
            raise RunFailedError(result.diagnosis)
        fit_s = time.perf_counter() - started - actors_s
        has_finished = result.reason == "finished"
        exported = self.directory.result(self.config)
        test = evaluation.final_test(exported, "test") if has_finished else None
        may_select = has_finished and self.config.data.selection_per_task > 0
        selection = evaluation.final_test(exported, "selection") if may_select else None
        wall = {
            "actors": actors_s,
            "workers' start and stop": max(0.0, fit_s - result.train_s),
            "training": result.train_s,
            "of which waiting for plans": result.plan_wait_s,
            "final test": time.perf_counter() - started - actors_s - fit_s,
        }
        return Outcome(
            worker=result,
            num_workers=result.num_workers,
            test=test,
            selection=selection,
            wall_s={name: round(seconds, 2) for name, seconds in wall.items()},
        )

    def _start_actors(self) -> tuple[Any, Evaluation]:
        setup, prepared = self.inputs.engine, self.inputs.prepared
        write_setup(self.directory.ledger, setup)
        engine = start_engine(
            self.launch, name=self.engine_name, namespace=self.namespace, ledger=self.directory.ledger
        )
        job = EvaluationJob(
            model=self.config.model,
            tasks=self.inputs.tasks,
            evaluation=self.config.evaluation,
            store=prepared.store_path,
            tokenizer=prepared.tokenizer_path,
            seed=self.config.seed,
            engine_name=self.engine_name,
            namespace=self.namespace,
        )
        evaluation = start_evaluation(job, self.launch, self.groups[1].placement, name=self.evaluator_name)
        await_engine(engine, self.launch, ledger=self.directory.ledger)
        return engine, evaluation

    def _trainer(self, group: WorkerGroup) -> TorchTrainer:
        config, prepared = self.config, self.inputs.prepared
        first, last = config.stages[0], config.stages[-1]
        job = WorkerJob(
            setup=self.inputs.engine,
            model=config.model,
            train=config.train,
            stages=(first.training(config.train), last.training(config.train)),
            initial_plan=HeatEngine(self.inputs.engine).plan,
            store=prepared.store_path,
            tokenizer=prepared.tokenizer_path,
            export_to=self.directory.result(config),
            checkpoints=self.directory.checkpoint_place(config),
            staging=self._staging(),
            journal=self.directory.journal,
            has_selection_rows=any(prepared.num_rows["selection"]),
            coordinator=RayCoordinatorFactory(
                engine_name=self.engine_name,
                evaluator_name=self.evaluator_name,
                namespace=self.namespace,
                plan_timeout_s=config.mixture.plan_timeout_s,
            ),
            parallelism=group.launch.parallelism,
            trains=group.stages,
        )
        return make_trainer(job, group, ray_folder=self.directory.ray_folder)

    def _staging(self) -> Path:
        base = self.launch.staging_dir or Path(f"taskheat-staging-{os.getuid()}")  # of each node's temporary files
        return base / self.directory.identity

    def _fit(self, engine: Any, evaluation: Evaluation, view: RunView) -> WorkerResult:
        """Train with one group of workers after the other, as each hands over to the next, until one ends the run.

        A group that finds the checkpoint of another's stage, because a newer one was damaged, hands over at once: so
        the first guess need not be right.
        """
        stage, train_s, plan_wait_s = stage_to_go_on_with(self.directory.ledger), 0.0, 0.0
        with stop_on_signal() as stop:
            watch = Watch(engine, view, stop)
            while True:
                group = self.groups[stage]
                if len(group.stages) == 1:
                    view.say(f"stage {stage}: {group.in_words()}")
                result = self._fit_group(group, evaluation, watch)
                train_s, plan_wait_s = train_s + result.train_s, plan_wait_s + result.plan_wait_s
                if result.reason not in ("handed_over", "rolled_back"):
                    return replace(result, train_s=train_s, plan_wait_s=plan_wait_s)
                rolled_back = result.reason == "rolled_back"
                stage = stage_to_go_on_with(self.directory.ledger) if rolled_back else result.stage

    def _fit_group(self, group: WorkerGroup, evaluation: Evaluation, watch: Watch) -> WorkerResult:
        self.directory.update_manifest(num_workers=group.placement.num_workers)
        self.directory.forget_ray()
        os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(start_timeout_s(group.launch))
        trainer = self._trainer(group)
        box: list[Any] = []
        failure: list[BaseException] = []

        def fit() -> None:
            try:
                box.append(trainer.fit())
            except Exception as error:  # noqa: BLE001 - handed to the main thread, which raises it
                failure.append(error)

        thread = threading.Thread(target=fit, name="fit", daemon=True)
        thread.start()

        def is_over() -> bool:
            has_ended = not thread.is_alive()
            evaluation.check()  # which says why the workers failed, if they could not find it
            return has_ended

        watch.until(is_over)
        if failure:
            raise explained(failure[0], group, run=self.directory.root)
        if box[0].return_value is None:
            raise ConfigError("the workers returned nothing: is this run's directory shared with another run?")
        return box[0].return_value


def stage_to_go_on_with(ledger: Path) -> int:
    """The stage that was in force at the newest checkpoint a ledger knows; 1 where there is none."""
    stages, checkpoints, newest = {0: 1}, {0: 1}, 0
    for record in read_ledger(ledger):
        match record:
            case DecisionRecord(plan=plan):
                stages[plan.version] = plan.stage
            case CheckpointRecord(step=step, plan_version=version):
                checkpoints[step], newest = stages[version], step
            case AttemptRecord(step=step) | RollbackRecord(to_step=step):
                newest = step
    return checkpoints[newest]


def _checked_groups(launch: LaunchConfig) -> dict[int, WorkerGroup]:
    """The workers of each stage, once it is sure that the cluster can hold them.

    Raises:
        ResourceError: The cluster is too small, or has no nodes with the wanted labels.
    """
    there = [Node(node["Resources"], node["Labels"]) for node in ray.nodes() if node["Alive"]]
    nodes = [*there, *described_nodes(launch.cluster.groups)] if launch.grows else there
    groups = worker_groups(launch, nodes)
    if not launch.grows:
        check_resources(groups[1].placement, available=ray.available_resources(), cluster=ray.cluster_resources())
    check_nodes(launch, nodes)
    return groups


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C or SIGTERM into a request to stop; the second one interrupts at once.

    A trial of a sweep does not run in its process's main thread, where alone signals arrive; the sweep stops it.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def request(_signum: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        os.write(2, b"\nstopping with a checkpoint at the next interval boundary; Ctrl-C again stops at once\n")

    previous = {number: signal.signal(number, request) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
