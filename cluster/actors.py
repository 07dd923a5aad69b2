"""The two actors of a run, the heat engine and the evaluation, as the driver holds them: started, awaited, asked.

    engine        must be up before the workers are asked for: they and the evaluation report to it
    evaluation    starts while engine and workers do; what keeps it from starting ends the run, with its own error

No wait here is without an end. What the actors do is their own business (`scheduler.actor`, `evalsvc.actor`).
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from cluster.config import LaunchConfig
from cluster.placement import Placement, environment_of
from cluster.worker_group import start_timeout_s
from evalsvc.actor import EvaluationActor, EvaluationJob
from evalsvc.evaluator import FinalScore
from scheduler.actor import HeatEngineActor
from scheduler.errors import ResourceError, RunFailedError
from train.config import SplitName

_ENGINE_START_S = 300.0
_EVALUATION_START_S = 1800.0
_FINAL_TEST_S = 86_400.0

_ANYWHERE = PlacementGroupSchedulingStrategy(placement_group=None)  # type: ignore[arg-type]
"""Not inside the placement group of a sweep's trial, which has no resources of its own."""


def start_engine(launch: LaunchConfig, *, name: str, namespace: str, ledger: Path) -> Any:
    """Begin to start the engine; `await_engine` says whether it came up."""
    return HeatEngineActor.options(name=name, namespace=namespace, **_engine_place(launch)).remote(str(ledger))


def await_engine(engine: Any, launch: LaunchConfig, *, ledger: Path) -> None:
    """Wait until the engine is up: 300 seconds at most, or as long as the workers may take if that is longer.

    Raises:
        ResourceError: It found no node, or could not read or write its ledger there.
    """
    timeout_s = max(_ENGINE_START_S, start_timeout_s(launch))
    try:
        ray.get(engine.ready.remote(), timeout=timeout_s)
    except GetTimeoutError as error:
        raise ResourceError(
            f"the heat engine did not start within {timeout_s:g} s; see that its node (launch.engine_labels "
            f"{launch.engine_labels}; without any, the driver's) is up: ray status"
        ) from error
    except RayError as error:
        raise ResourceError(
            f"the heat engine could not start: {_last_line(error)}; see that its node can read and write {ledger}"
        ) from error


def _engine_place(launch: LaunchConfig) -> dict[str, Any]:
    """Actor options: on a node with the labels it is given, or beside the driver, which it would not outlive anyway."""
    if launch.engine_labels:
        return {"label_selector": launch.engine_labels, "scheduling_strategy": _ANYWHERE}
    here = ray.get_runtime_context().get_node_id()
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node_id=here, soft=True)}


def start_evaluation(job: EvaluationJob, launch: LaunchConfig, placement: Placement, *, name: str) -> "Evaluation":
    """Begin to start the evaluation; `Evaluation.check` says whether it came up."""
    needs = placement.evaluation
    actor: Any = EvaluationActor.options(
        name=name,
        namespace=job.namespace,
        scheduling_strategy=_ANYWHERE,
        num_cpus=needs["CPU"],
        num_gpus=needs.get("GPU", 0),
        memory=needs.get("memory"),
        resources={kind: amount for kind, amount in needs.items() if kind not in ("CPU", "GPU", "memory")},
        label_selector=launch.evaluation_labels or None,
        runtime_env={"env_vars": environment_of(needs)},
    ).remote(job)
    return Evaluation(actor, launch=launch, store=job.store)


@dataclass(slots=True)
class Evaluation:
    """The evaluation's actor, from its start to the final test."""

    actor: Any
    launch: LaunchConfig
    store: Path
    _starting: Any = field(init=False)
    _since: float = field(init=False)

    def __post_init__(self) -> None:
        """Ask for a sign of life, which comes once its model is built."""
        self._starting, self._since = self.actor.ready.remote(), time.monotonic()

    def check(self) -> None:
        """See whether it came up; never waits.

        A constructor that fails leaves an actor dead however often it may restart: the run would then train on its
        first plan alone.

        Raises:
            RunFailedError: It could not start, or has not for 1800 seconds, or for as long as the workers may take.
        """
        if self._starting is None:
            return
        timeout_s = max(_EVALUATION_START_S, start_timeout_s(self.launch))
        if ray.wait([self._starting], timeout=0)[0]:
            try:
                ray.get(self._starting)
            except RayError as error:
                raise RunFailedError(f"{error}\n{self._in_words(_last_line(error))}") from error
            self._starting = None
        elif time.monotonic() - self._since > timeout_s:
            raise RunFailedError(self._in_words(f"it was not up after {timeout_s:g} s, or died again and again"))

    def _in_words(self, cause: str) -> str:
        return (
            f"the evaluation could not start: {cause}; it needs memory for the model beside the workers' "
            "(launch.evaluation_gpus, launch.evaluation_resources, or a node of its own by launch.evaluation_labels) "
            f"and must be able to read {self.store} on its node"
        )

    def final_test(self, result: Path, split: SplitName) -> list[FinalScore]:
        """Scores of the exported result on held-out rows.

        The bound is generous, a day, for large test sets. A process that dies is started again `launch.max_failures`
        times.

        Raises:
            RunFailedError: There are no scores. The result is there all the same, and can be scored again.
        """
        call = self.actor.final_test.options(max_task_retries=self.launch.max_failures)
        try:
            return ray.get(call.remote(result, split), timeout=_FINAL_TEST_S)
        except RayError as error:
            has_timed_out = isinstance(error, GetTimeoutError)
            cause = f"no answer for {_FINAL_TEST_S / 3600:g} hours" if has_timed_out else _last_line(error)
            raise RunFailedError(
                f"{error}\nthe {split} rows could not be scored: {cause}; training is done and its result lies in "
                f"{result}; taskheat run --resume {result.parent} scores it again, with "
                "launch.evaluation_gpus or launch.evaluation_resources for more memory"
            ) from error


def _last_line(error: RayError) -> str:
    """What was raised in the actor: Ray's messages end with it."""
    return str(error).strip().splitlines()[-1]
