"""Engine and evaluation as the driver sees them: no wait without an end, and failures with their cause and a remedy.

(Actors on real Ray are in tests/integration.)
"""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import GetTimeoutError, RayActorError, RayError

from cluster import actors
from cluster.actors import Evaluation, await_engine, start_engine, start_evaluation
from cluster.config import LaunchConfig
from cluster.placement import Placement
from scheduler.errors import ResourceError, RunFailedError

RESULT = Path("/runs/one/adapter")
DIED = RayActorError(error_msg="The actor died because of an error raised in its creation task\nOSError: no such file")


class Method:
    """A method of an actor: remembers its options and arguments; `ray.get` gives or raises `answer`."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.chosen, self.arguments = answer, {}, ()

    def options(self, **chosen: Any) -> "Method":
        self.chosen = chosen
        return self

    def remote(self, *arguments: Any) -> "Method":
        self.arguments = arguments
        return self


class Class:
    """An actor's class: every actor it makes is `actor`."""

    def __init__(self, actor: Any) -> None:
        self.actor, self.chosen = actor, {}

    def options(self, **chosen: Any) -> "Class":
        self.chosen = chosen
        return self

    def remote(self, *_: Any) -> Any:
        return self.actor


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """Ray that answers as the methods say; an answer of None is one that does not come. Holds how long was waited."""
    waits: list[float | None] = []

    def get(method: Method, timeout: float | None = None) -> Any:
        waits.append(timeout)
        answer = GetTimeoutError("Get timed out") if method.answer is None else method.answer
        if isinstance(answer, Exception):
            raise answer
        return answer

    def wait(methods: list[Method], timeout: float) -> Any:
        assert timeout == 0
        return [method for method in methods if method.answer is not None], []

    monkeypatch.setattr(actors.ray, "get", get)
    monkeypatch.setattr(actors.ray, "wait", wait)
    monkeypatch.setattr(actors, "_engine_place", lambda _: {})
    return waits


def evaluation(*, ready: Any = 1, final_test: Any = None, launch: LaunchConfig | None = None) -> Evaluation:
    actor = SimpleNamespace(ready=Method(ready), final_test=Method(final_test))
    return Evaluation(actor, launch=launch or LaunchConfig(), store=Path("/data/store"))


def test_an_evaluation_on_its_way_up_is_not_waited_for(waits: list[float | None]) -> None:
    one = evaluation(ready=None)
    one.check()
    one.actor.ready.answer = 1
    one.check()
    one.actor.ready.answer = DIED
    one.check()  # it was up once: Ray starts it again
    assert waits == [None]  # once it was ready


def test_an_evaluation_whose_constructor_failed_ends_the_run_with_its_error_and_what_to_change(
    waits: list[float | None],
) -> None:
    with pytest.raises(RunFailedError) as failure:
        evaluation(ready=DIED).check()
    story, last = str(failure.value).rsplit("\n", 1)
    assert story == str(DIED)
    assert last.startswith("the evaluation could not start: OSError: no such file; it needs memory")
    assert "launch.evaluation_gpus" in last
    assert "/data/store" in last
    assert len(waits) == 1


@pytest.mark.usefixtures("waits")
def test_an_evaluation_that_dies_again_and_again_before_it_is_up_ends_the_run_in_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one, now = evaluation(ready=None), actors.time.monotonic()
    monkeypatch.setattr(actors.time, "monotonic", lambda: now + 1790)
    one.check()
    monkeypatch.setattr(actors.time, "monotonic", lambda: now + 1810)
    with pytest.raises(RunFailedError, match="could not start: it was not up after 1800 s, or died again and again;"):
        one.check()


def test_the_result_is_scored_with_an_end_to_waiting_and_to_new_tries(waits: list[float | None]) -> None:
    one = evaluation(final_test=["scores"], launch=LaunchConfig(max_failures=2))
    assert one.final_test(RESULT, "test") == ["scores"]  # pyright: ignore[reportUnnecessaryComparison]
    assert (one.actor.final_test.chosen, one.actor.final_test.arguments) == ({"max_task_retries": 2}, (RESULT, "test"))
    assert waits == [24 * 3600]


@pytest.mark.usefixtures("waits")
@pytest.mark.parametrize(("answer", "cause"), [(None, "no answer for 24 hours"), (DIED, "OSError: no such file")])
def test_a_result_that_cannot_be_scored_is_there_and_can_be_scored_again(answer: RayError | None, cause: str) -> None:
    with pytest.raises(RunFailedError) as failure:
        evaluation(final_test=answer).final_test(RESULT, "selection")
    last = str(failure.value).splitlines()[-1]
    assert last.startswith(f"the selection rows could not be scored: {cause}; training is done and its result lies in ")
    assert "/runs/one/adapter; taskheat run --resume /runs/one scores it again" in last


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [(0.0, {"CUDA_VISIBLE_DEVICES": "", "HIP_VISIBLE_DEVICES": ""}), (0.25, {})],
    ids=["no GPU", "a part of one"],
)
def test_an_evaluation_without_a_gpu_does_not_see_its_nodes(
    gpus: float, expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Class(SimpleNamespace(ready=Method(None)))
    monkeypatch.setattr(actors, "EvaluationActor", made)
    placement = Placement(num_workers=1, worker={"CPU": 1.0}, evaluation={"CPU": 0.0, "GPU": gpus, "disk": 2.0})
    job: Any = SimpleNamespace(namespace="here", store=Path("/data/store"))
    start_evaluation(job, LaunchConfig(), placement, name="evaluation-one")
    assert made.chosen["runtime_env"] == {"env_vars": {"OMP_NUM_THREADS": "1", **expected}}
    assert (made.chosen["num_cpus"], made.chosen["num_gpus"], made.chosen["resources"]) == (0.0, gpus, {"disk": 2.0})


def engine_starter(answer: Any, monkeypatch: pytest.MonkeyPatch, launch: LaunchConfig) -> Callable[[], Any]:
    monkeypatch.setattr(actors, "HeatEngineActor", Class(SimpleNamespace(ready=Method(answer))))
    ledger = Path("/runs/one/ledger")
    engine = start_engine(launch, name="heat-one", namespace="here", ledger=ledger)
    return lambda: await_engine(engine, launch, ledger=ledger)


def test_an_engine_is_waited_for_as_long_as_workers_may_take_and_no_longer(
    waits: list[float | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine_starter(1, monkeypatch, LaunchConfig())()
    engine_starter(1, monkeypatch, LaunchConfig(worker_start_timeout_s=700))()
    assert waits == [300, 700]
    with pytest.raises(ResourceError, match=r"did not start within 300 s; .* \(launch.engine_labels {'pool': 'a'};"):
        engine_starter(None, monkeypatch, LaunchConfig(engine_labels={"pool": "a"}))()


@pytest.mark.usefixtures("waits")
def test_an_engine_that_cannot_start_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ResourceError, match=r"could not start: OSError: no such file; see that .* /runs/one/ledger"):
        engine_starter(DIED, monkeypatch, LaunchConfig())()
