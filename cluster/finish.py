"""After training: report, model card, ledger tables, manifest. All of it can be made again from ledger and manifest."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import pyarrow.parquet as pq

from cluster.config import RunConfig
from cluster.driver import Outcome
from cluster.run_directory import RunDirectory
from cluster.setup import Inputs
from evalsvc.report.card import model_card
from evalsvc.report.model import build_report
from evalsvc.report.page import write_report
from evalsvc.report.schema import Report, RowCounts, RunFacts, SourceFacts
from evalsvc.report.tables import write_ledger_tables
from scheduler.errors import RunDirectoryError
from scheduler.ledger import read_ledger
from train.config import PretrainedModel


def conclude(config: RunConfig, directory: RunDirectory, inputs: Inputs, outcome: Outcome) -> Report:
    """Write everything a finished run leaves behind; returns its report."""
    facts = _facts(config, directory, inputs, outcome)
    selection = [asdict(score) for score in outcome.selection or []]
    directory.update_manifest(
        status="finished", step=outcome.worker.step, notes=inputs.notes, facts=asdict(facts), selection=selection
    )
    return write_reports(directory)


def write_reports(directory: RunDirectory) -> Report:
    """Write report.html, report.json, the model card and the ledger's tables from ledger and manifest.

    Raises:
        RunDirectoryError: The run has not finished.
    """
    manifest = directory.read_manifest()
    if "facts" not in manifest:
        status = manifest.get("status", "no manifest")
        raise RunDirectoryError(f"{directory.root} is not the directory of a finished run (status: {status})")
    fields = manifest["facts"]
    rows = {name: RowCounts(**counts) for name, counts in fields["rows"].items()}
    sources = tuple(SourceFacts(**{**one, "licences": tuple(one["licences"])}) for one in fields.get("sources", ()))
    facts = RunFacts(**{**fields, "rows": rows, "sources": sources})
    records = list(read_ledger(directory.ledger))
    report = build_report(records, facts)
    write_report(report, directory.root)
    write_ledger_tables(records, directory.ledger.parent)
    result = directory.root / ("adapter" if facts.has_adapter else "model")
    (result / "README.md").write_text(model_card(report, facts), encoding="utf-8")
    return report


def _facts(config: RunConfig, directory: RunDirectory, inputs: Inputs, outcome: Outcome) -> RunFacts:
    model, counts = config.model, inputs.prepared.num_rows
    rows = {
        name: RowCounts(train=counts["train"][index], probe=counts["probe"][index], test=counts["test"][index])
        for index, name in enumerate(inputs.prepared.task_names)
    }
    if isinstance(model, PretrainedModel):
        words = f"{model.path}, " + (f"LoRA rank {model.lora.rank}" if model.lora else "all weights trained")
    else:
        words = f"llama from scratch, hidden {model.hidden_size}, {model.num_layers} layers"
    tests = outcome.test or []
    sessions = directory.sessions
    timed = [session for session in sessions if session is not None]
    return RunFacts(
        run_name=directory.root.name,
        model=words,
        num_workers=outcome.num_workers,
        base_model=model.path if isinstance(model, PretrainedModel) else None,
        has_adapter=isinstance(model, PretrainedModel) and model.lora is not None,
        trust_remote_code=model.trust_remote_code,
        wall_seconds=_summed(timed),
        num_sessions=len(sessions),
        num_untimed_sessions=len(sessions) - len(timed),
        test_scores={result.task: result.score for result in tests if result.score is not None},
        rows=rows,
        sources=_sources(inputs),
    )


def _summed(sessions: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Seconds of each part over these sessions."""
    parts = dict.fromkeys(part for session in sessions for part in session)
    return {part: round(sum(session.get(part, 0.0) for session in sessions), 2) for part in parts}


def _sources(inputs: Inputs) -> tuple[SourceFacts, ...]:
    """The sources of the prepared data, with the licences that their stored rows name."""
    lineage = pq.read_table(inputs.prepared.store_path / "lineage.parquet", columns=["source", "licence"])
    named: dict[str, set[str]] = {}
    for pair in lineage.group_by(["source", "licence"]).aggregate([]).to_pylist():
        if pair["licence"]:
            named.setdefault(pair["source"], set()).add(pair["licence"])
    return tuple(
        SourceFacts(
            path=source.path,
            num_read=source.num_read,
            num_refused=sum(source.refused.values()),
            licences=tuple(sorted({name for path in named if path.startswith(source.path) for name in named[path]})),
        )
        for source in inputs.prepared.summary.sources
    )
