"""Ledger records in, `Report` out: where every figure of the report is computed.

`evalsvc.report.history` settles restarts; this module counts. A weight belongs to steps only when they were trained
under it: the plan in force at a boundary counts from there to the next boundary, so a plan that came too late, or after
the last step, has no share in any figure here.
"""

import itertools
from collections.abc import Iterable, Sequence

from evalsvc.report.history import RunHistory
from evalsvc.report.influence import measure_influence
from evalsvc.report.schema import (
    SCHEMA_VERSION,
    Arranged,
    Components,
    DecisionReport,
    Report,
    RowCounts,
    RunFacts,
    ScorePoint,
    Segment,
    Superseded,
    TaskReport,
    WeightChange,
)
from evalsvc.report.words import change_sentence, guard_sentences, heat_contributions
from scheduler.explain import recognised_as
from scheduler.records import DecisionRecord, Record, TaskDecision
from scheduler.setup import EngineSetup, WeightUnit
from scheduler.signals import TaskSignal

__all__ = ["Report", "RowCounts", "RunFacts", "build_report"]

NUM_NOTABLE_CHANGES = 5
MIN_NOTABLE_CHANGE = 0.005
_NOTABLE_EVENTS = ("stage", "state", "level", "frozen")


def build_report(records: Iterable[Record], facts: RunFacts) -> Report:
    """Turn a ledger into a report. Works on an unfinished run too.

    Raises:
        LedgerError: The records do not start with a run record, or name a plan or task the ledger does not hold.
    """
    history = RunHistory.of(records)
    setup = history.run_setup
    segments = _segments(history)
    decisions = tuple(_decision(decision, setup, segments) for decision in history.decisions)
    return Report(
        schema_version=SCHEMA_VERSION,
        run_name=facts.run_name,
        model=facts.model,
        num_workers=facts.num_workers,
        mode=setup.mode,
        seed=setup.seed,
        num_steps=history.step,
        total_steps=setup.total_steps,
        interval_steps=setup.interval_steps,
        global_batch_size=setup.global_batch_size,
        num_samples=sum(sum(segment.samples.values()) for segment in segments),
        num_plans=len(history.plans),
        num_attempts=len(history.attempts),
        stage_boundary_step=_stage_boundary(segments),
        end_reason=history.end.reason if history.end else None,
        weight_unit=setup.mixture.weight_unit,
        max_share_error=_max_share_error(segments, history.task_names, setup.mixture.weight_unit),
        arranged=_arranged(history),
        max_staleness_steps=max((boundary.staleness_steps for boundary in history.boundaries), default=0),
        wall_seconds=dict(facts.wall_seconds),
        num_sessions=facts.num_sessions,
        num_untimed_sessions=facts.num_untimed_sessions,
        rows=dict(facts.rows),
        tasks=_tasks(history, segments, facts),
        decisions=decisions,
        events=history.events,
        biggest_change=_biggest_change(history, decisions),
        notable=_notable(history, decisions),
        segments=segments,
        scores=tuple(_score_point(signal) for signals in history.signals.values() for signal in signals),
        influence=measure_influence(history),
        superseded=Superseded(
            num_boundaries=len(history.superseded_boundaries),
            scores=tuple(_score_point(signal) for signal in history.superseded_signals),
            decisions=tuple(_decision(decision, setup, ()) for decision in history.superseded_decisions),
        ),
    )


def _segments(history: RunHistory) -> tuple[Segment, ...]:
    """Cut the trained steps at the boundaries; the steps before the first boundary belong to the initial plan."""
    names = history.task_names
    start_step, plan, counts = 0, history.plans[0], (0,) * len(names)
    tokens = counts
    segments: list[Segment] = []
    for boundary in history.boundaries:
        report = boundary.report
        if report.step > start_step:
            served = [after - before for after, before in zip(report.num_samples, counts, strict=True)]
            trained = [after - before for after, before in zip(report.num_tokens, tokens, strict=True)]
            segments.append(
                Segment(
                    start_step=start_step,
                    end_step=report.step,
                    plan_version=plan.version,
                    stage=plan.stage,
                    weights=dict(zip(names, plan.weights, strict=True)),
                    samples=dict(zip(names, served, strict=True)),
                    tokens=dict(zip(names, trained, strict=True)),
                )
            )
        start_step, plan, counts, tokens = report.step, boundary.plan, report.num_samples, report.num_tokens
    return tuple(segments)


def _stage_boundary(segments: Sequence[Segment]) -> int | None:
    pairs = itertools.pairwise(segments)
    return next((after.start_step for before, after in pairs if after.stage != before.stage), None)


def _arranged(history: RunHistory) -> Arranged:
    if not history.boundaries:
        return Arranged(0, 0, 0, 0)
    report = history.boundaries[-1].report
    return Arranged(*report.num_arranged, report.num_own_answers)


def _max_share_error(segments: Sequence[Segment], names: Sequence[str], unit: WeightUnit) -> float:
    served, owed, worst = dict.fromkeys(names, 0), dict.fromkeys(names, 0.0), 0.0
    for segment in segments:
        of_segment = segment.served(unit)
        total = sum(of_segment.values())
        for name in names:
            served[name] += of_segment[name]
            owed[name] += segment.weights[name] * total
            worst = max(worst, abs(served[name] - owed[name]))
    return worst


def _tasks(history: RunHistory, segments: Sequence[Segment], facts: RunFacts) -> dict[str, TaskReport]:
    setup = history.run_setup
    unit = setup.mixture.weight_unit
    totals = [sum(segment.served(unit).values()) for segment in segments]
    total = sum(totals)
    last_weights = (
        segments[-1].weights if segments else dict(zip(history.task_names, history.plans[0].weights, strict=True))
    )
    last_decisions = {task.task: task for decision in history.decisions for task in decision.tasks}
    reports: dict[str, TaskReport] = {}
    for spec, first_weight, num_rows in zip(setup.tasks, history.plans[0].weights, setup.num_rows, strict=True):
        name, signals = spec.name, history.signals[spec.name]
        samples = sum(segment.samples[name] for segment in segments)
        served = sum(segment.served(unit)[name] for segment in segments)
        owed = sum(segment.weights[name] * all_served for segment, all_served in zip(segments, totals, strict=True))
        decided = last_decisions.get(name)
        reports[name] = TaskReport(
            kind=spec.kind,
            tier=spec.tier,
            target_score=spec.target_score,
            first_score=signals[0].score if signals else None,
            last_score=signals[-1].score if signals else None,
            test_score=facts.test_scores.get(name),
            first_weight=first_weight,
            last_weight=last_weights[name],
            target_share=owed / total if total else None,
            realised_share=served / total if total else None,
            samples=samples,
            tokens=sum(segment.tokens[name] for segment in segments),
            epochs=samples / num_rows,
            heat=decided.heat if decided else None,
            learnability=decided.learnability if decided else None,
            noise_since=decided.noise_since if decided else None,
            solved_since=decided.solved_since if decided else None,
            recognised=recognised_as(decided) if decided else None,
            components=_components(decided) if decided else None,
            heat_parts=_heat_parts(decided, setup) if decided else None,
        )
    return reports


def _heat_parts(task: TaskDecision, setup: EngineSetup) -> Components:
    return Components(**heat_contributions(task, setup.mixture.heat))


def _components(task: TaskDecision) -> Components:
    return Components(decay=task.decay, variance=task.variance, rejection=task.rejection, gap=task.gap)


def _decision(record: DecisionRecord, setup: EngineSetup, segments: Sequence[Segment]) -> DecisionReport:
    plan = record.plan
    trained = (segment.start_step for segment in segments if segment.plan_version == plan.version)
    return DecisionReport(
        version=plan.version,
        source_step=plan.source_step,
        effective_from_step=plan.effective_from_step,
        in_force_from_step=next(trained, None),
        stage=plan.stage,
        state=record.state,
        held=record.held,
        weights=dict(zip((spec.name for spec in setup.tasks), plan.weights, strict=True)),
        tasks=record.tasks,
        heat_parts={task.task: _heat_parts(task, setup) for task in record.tasks},
        sentences=record.sentences,
    )


def _score_point(signal: TaskSignal) -> ScorePoint:
    return ScorePoint(task=signal.task, step=signal.step, attempt=signal.attempt, score=signal.score, loss=signal.loss)


def _applied(history: RunHistory, decisions: Sequence[DecisionReport]) -> list[DecisionRecord]:
    in_force = [report.in_force_from_step is not None for report in decisions]
    return list(itertools.compress(history.decisions, in_force))


def _moved(task: TaskDecision) -> float:
    return abs(task.weight_after - task.weight_before)


def _greatest_moves(decisions: Iterable[DecisionRecord]) -> list[tuple[DecisionRecord, TaskDecision]]:
    """The task each decision moved most, the greatest move first."""
    moves = [(decision, max(decision.tasks, key=_moved)) for decision in decisions if decision.tasks]
    return sorted((move for move in moves if _moved(move[1]) > 0), key=lambda move: -_moved(move[1]))


def _biggest_change(history: RunHistory, decisions: Sequence[DecisionReport]) -> WeightChange | None:
    moves = _greatest_moves(_applied(history, decisions))
    if not moves:
        return None
    decision, task = moves[0]
    return WeightChange(
        task=task.task,
        version=decision.plan.version,
        before=task.weight_before,
        after=task.weight_after,
        sentence=change_sentence(decision, task),
    )


def _notable(history: RunHistory, decisions: Sequence[DecisionReport]) -> tuple[str, ...]:
    applied = _applied(history, decisions)
    moves = [move for move in _greatest_moves(applied) if _moved(move[1]) >= MIN_NOTABLE_CHANGE]
    changes = sorted(moves[:NUM_NOTABLE_CHANGES], key=lambda move: move[0].plan.version)
    sentences = [change_sentence(decision, task) for decision, task in changes]
    stages = [event.text for event in history.events if event.kind in _NOTABLE_EVENTS and not event.superseded]
    return (*sentences, *stages, *guard_sentences(applied))
