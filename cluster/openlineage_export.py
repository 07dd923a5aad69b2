"""A run's data lineage as OpenLineage events: one for preparing its data, one for training on it.

    source files ─► job <run>.prepare ─► prepared data ─► job <run>.train ─► adapter or model

The events say which files went in, how many of their rows were refused under which rule, what each task got, and what
came out; a catalogue (Marquez, DataHub, ...) draws the graph from them. Row-level lineage is not OpenLineage's: it lies
in `lineage.parquet` and is read by `taskheat trace`.

What this does not do: send. It writes one event a line, which `openlineage` clients and `curl` post as they are.
Source: OpenLineage spec 2-0-2, through the package `openlineage-python` (extra `openlineage`).
"""

import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from cluster.config import RunConfig
from cluster.run_directory import RunDirectory
from cluster.settings import load_config
from scheduler.errors import ConfigError, DataError
from train.config import PretrainedModel
from train.data.summary import SourceSummary, Summary

if TYPE_CHECKING:
    from openlineage.client.event_v2 import InputDataset, OutputDataset, RunEvent

_PRODUCER = "https://github.com/taskheat/taskheat"


@dataclass(frozen=True, slots=True)
class _Facts:
    """What the events are made of."""

    run_name: str
    created: str
    finished: bool
    prepared: Path
    summary: Summary
    base_model: str | None
    result: Path


def write_events(root: Path, out: Path) -> int:
    """Write the events of the run in `root` to a new file, one JSON object a line; returns how many.

    Raises:
        ConfigError: The extra is not installed, or `out` exists or cannot be written.
        RunDirectoryError: `root` is not the directory of a run.
        DataError: The prepared data of the run is gone.
    """
    try:
        from openlineage.client.serde import Serde
    except ImportError as error:
        raise ConfigError("OpenLineage events need the extra: pip install 'taskheat[openlineage]'") from error
    facts = _read(root)
    events = [_prepare_event(facts), _train_event(facts)]
    lines = [Serde.to_json(event) for event in events]
    try:
        with out.open("x", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
    except FileExistsError as error:
        raise ConfigError(f"--openlineage: {out} exists and is not overwritten; name another file") from error
    except OSError as error:
        raise ConfigError(f"--openlineage: {out} cannot be written ({error.strerror}); choose another place") from error
    return len(lines)


def _read(root: Path) -> _Facts:
    directory = RunDirectory(root)
    manifest = directory.read_manifest()
    prepared = Path(manifest.get("prepared", ""))
    try:
        summary = Summary.from_json((prepared / "summary.json").read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{root}: the prepared data of this run is not at {prepared or 'any recorded place'} any more; "
            "prepare it again with taskheat prepare"
        ) from error
    config = load_config(RunConfig, files=[directory.config])
    return _Facts(
        run_name=manifest["name"],
        created=manifest["created"],
        finished=manifest.get("status") == "finished",
        prepared=prepared.absolute(),
        summary=summary,
        base_model=config.model.path if isinstance(config.model, PretrainedModel) else None,
        result=directory.result(config).absolute(),
    )


def _event(facts: _Facts, step: str, *, complete: bool, inputs: list, outputs: list) -> "RunEvent":
    from openlineage.client.event_v2 import Job, Run, RunEvent, RunState

    run_id = uuid.uuid5(uuid.NAMESPACE_URL, f"{facts.run_name}/{facts.created}/{step}")
    return RunEvent(
        eventTime=facts.created,
        eventType=RunState.COMPLETE if complete else RunState.RUNNING,
        run=Run(runId=str(run_id)),
        job=Job(namespace="taskheat", name=f"{facts.run_name}.{step}"),
        inputs=inputs,
        outputs=outputs,
        producer=_PRODUCER,
    )


def _prepare_event(facts: _Facts) -> "RunEvent":
    inputs = [_source(source) for source in facts.summary.sources]
    return _event(facts, "prepare", complete=True, inputs=inputs, outputs=[_prepared_output(facts)])


def _train_event(facts: _Facts) -> "RunEvent":
    from openlineage.client.event_v2 import InputDataset, OutputDataset

    num_rows = sum(task.num_train for task in facts.summary.tasks)
    inputs = [_input(*_place(str(facts.prepared)), num_rows=num_rows)]
    if facts.base_model is not None:
        inputs.append(InputDataset(namespace="model", name=facts.base_model))
    outputs = [OutputDataset(*_place(str(facts.result)))]
    return _event(facts, "train", complete=facts.finished, inputs=inputs, outputs=outputs)


def _source(source: SourceSummary) -> "InputDataset":
    """One source with the rules its refused rows broke, as data-quality assertions."""
    from openlineage.client.generated.data_quality_assertions_dataset import (
        Assertion,
        DataQualityAssertionsDatasetFacet,
    )

    assertions = [
        Assertion(assertion=rule, success=False, column=None) for rule, count in source.refused.items() if count
    ]
    dataset = _input(*_place(source.path), num_rows=source.num_read)
    if assertions and dataset.inputFacets is not None:
        dataset.inputFacets["dataQualityAssertions"] = DataQualityAssertionsDatasetFacet(assertions=assertions)
    return dataset


def _input(namespace: str, name: str, *, num_rows: int) -> "InputDataset":
    from openlineage.client.event_v2 import InputDataset
    from openlineage.client.generated.input_statistics_input_dataset import InputStatisticsInputDatasetFacet

    return InputDataset(namespace, name, inputFacets={"inputStatistics": InputStatisticsInputDatasetFacet(num_rows)})


def _prepared_output(facts: _Facts) -> "OutputDataset":
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.generated.documentation_dataset import DocumentationDatasetFacet
    from openlineage.client.generated.output_statistics_output_dataset import OutputStatisticsOutputDatasetFacet

    tasks = facts.summary.tasks
    num_rows = sum(task.num_train for task in tasks)
    words = "; ".join(f"{task.task}: {task.num_train} to train on" for task in tasks)
    return OutputDataset(
        *_place(str(facts.prepared)),
        outputFacets={"outputStatistics": OutputStatisticsOutputDatasetFacet(rowCount=num_rows)},
        facets={"documentation": DocumentationDatasetFacet(description=f"tokenised rows by task: {words}")},
    )


def _place(path: str) -> tuple[str, str]:
    """(namespace, name) by OpenLineage's naming: `file` and the absolute path, or scheme://host and the rest."""
    url = urlsplit(path)
    if url.scheme and "://" in path:
        return f"{url.scheme}://{url.netloc}", url.path.lstrip("/") or "/"
    return "file", str(Path(path).absolute())
