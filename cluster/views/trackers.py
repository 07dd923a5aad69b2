"""The run in experiment trackers: Weights & Biases, MLflow, trackio. Each is an extra of the project.

They get the scalars of `cluster.views.scalars` under the run's name, and are set up the way they always are: by their
own environment variables (`WANDB_PROJECT`, `WANDB_MODE=offline`, `MLFLOW_TRACKING_URI`, `TRACKIO_SPACE_ID`, …). A run
that goes on writes into the same run of the tracker; steps trained again after a restart are written again.

A tracker that fails, during training or at its end, is given up with a note: the run does not depend on it, and
everything it would have got is in the ledger. User names and passwords in addresses are left out of every message.
"""

import importlib.util
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from cluster.views.scalars import Scalars, ScalarStream
from scheduler.errors import ConfigError
from scheduler.records import Record

Tracker = Literal["wandb", "mlflow", "trackio"]
PROJECT = "taskheat"


class Sink(Protocol):
    """One tracker's open run."""

    def log(self, scalars: Scalars) -> None:
        """Write values of a step. Raises what the tracker's package raises when it cannot take them."""
        ...

    def close(self) -> None:
        """End the tracker's run. Raises as `log`."""
        ...


def check_trackers(trackers: Sequence[Tracker]) -> None:
    """Refuse a tracker whose package is missing, before anything is started.

    Raises:
        ConfigError: Says how to install it.
    """
    for name in trackers:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(
                f"launch.trackers: {name} is not installed; pip install 'taskheat[{name}]', or remove it from the list"
            )


class Trackers:
    """All trackers of a run, as one view.

    Raises:
        ConfigError: A tracker cannot be opened.
    """

    def __init__(self, trackers: Sequence[Tracker], *, run: str, folder: Path) -> None:
        check_trackers(trackers)
        self._scalars = ScalarStream()
        self._sinks = {name: _open(name, run=run, folder=folder) for name in trackers}

    def observe(self, record: Record) -> None:
        """Take in the next record of the ledger and pass on what it measures."""
        scalars = self._scalars.observe(record)
        if scalars is None:
            return
        self._ask_each(lambda sink: sink.log(scalars))

    def close(self) -> None:
        """End the trackers' runs."""
        self._ask_each(lambda sink: sink.close())

    def _ask_each(self, ask: Callable[[Sink], None]) -> None:
        """`ask` every tracker that is left; one that fails is given up."""
        for name, sink in list(self._sinks.items()):
            try:
                ask(sink)
            except Exception as error:  # noqa: BLE001 - each package has errors of its own, and the run needs none
                said = without_user_info(str(error))
                print(f"note: {name} is given up for this run: {said}", file=sys.stderr, flush=True)
                del self._sinks[name]


def without_user_info(text: str) -> str:
    """The text with `user:password@` removed from every URL in it."""
    return re.sub(r"(?<=://)[^/\s]\S*@", "", text)


def _open(name: Tracker, *, run: str, folder: Path) -> Sink:
    folder.mkdir(parents=True, exist_ok=True)
    match name:
        case "wandb":
            return _Wandb(run, folder)
        case "mlflow":
            return _Mlflow(run, folder)
        case "trackio":
            return _Trackio(run)


class _Wandb:
    """A W&B run; its own step may not go back, so ours is a value of its own that every chart is drawn against."""

    def __init__(self, run: str, folder: Path) -> None:
        import wandb  # pyright: ignore[reportMissingImports]

        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT), name=run, id=run, resume="allow", dir=str(folder)
            )
        except wandb.Error as error:
            remedy = "set WANDB_API_KEY, or WANDB_MODE=offline"
            raise ConfigError(f"launch.trackers: wandb cannot be opened ({error}); {remedy}") from error
        self._run.define_metric("*", step_metric="train_step")

    def log(self, scalars: Scalars) -> None:
        self._run.log({"train_step": scalars.step, **scalars.values})

    def close(self) -> None:
        self._run.finish()


class _Mlflow:
    """An MLflow run; without `MLFLOW_TRACKING_URI` in a SQLite file beside the TensorBoard files."""

    def __init__(self, run: str, folder: Path) -> None:
        from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]
        from mlflow.entities import Metric  # pyright: ignore[reportMissingImports]
        from mlflow.exceptions import MlflowException  # pyright: ignore[reportMissingImports]

        self._metric = Metric
        self._last_ms = 0  # MLflow orders values of one step by time
        address = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}"
        try:
            self._client = MlflowClient(tracking_uri=address)
            self._run_id = self._find(run) or self._create(run)
        except (MlflowException, OSError) as error:
            said = without_user_info(f"mlflow cannot be opened at {address} ({error})")
            raise ConfigError(f"launch.trackers: {said}; correct MLFLOW_TRACKING_URI") from error

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(name)
        return found.experiment_id if found is not None else self._client.create_experiment(name)

    def _find(self, run: str) -> str | None:
        """The run of that name that an earlier start left."""
        named = f"attributes.run_name = '{run}'"
        found = self._client.search_runs([self._experiment()], filter_string=named, max_results=1)
        return found[0].info.run_id if found else None

    def _create(self, run: str) -> str:
        return self._client.create_run(self._experiment(), run_name=run).info.run_id

    def log(self, scalars: Scalars) -> None:
        self._last_ms = max(self._last_ms + 1, time.time_ns() // 1_000_000)
        values = scalars.values.items()
        made: Any = [self._metric(_mlflow_key(tag), value, self._last_ms, scalars.step) for tag, value in values]
        self._client.log_batch(self._run_id, metrics=made)

    def close(self) -> None:
        self._client.set_terminated(self._run_id)


class _Trackio:
    """A trackio run; it keeps what it could not send and warns by itself."""

    def __init__(self, run: str) -> None:
        import trackio  # pyright: ignore[reportMissingImports]

        project = os.environ.get("TRACKIO_PROJECT", PROJECT)
        self._run = trackio.init(
            project=project, name=run, resume="allow", embed=False, auto_log_gpu=False, auto_log_cpu=False
        )

    def log(self, scalars: Scalars) -> None:
        self._run.log(dict(scalars.values), step=scalars.step)

    def close(self) -> None:
        self._run.finish()


def _mlflow_key(tag: str) -> str:
    """MLflow takes letters, digits and `_-. :/` only."""
    return "".join(char if char.isalnum() or char in "_-. :/" else "_" for char in tag)
