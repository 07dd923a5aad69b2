"""The judgement of one snapshot: task by task, from held-out probes to the `TaskSignal` the engine reads.

Per task, cheapest first:

    all probes             one teacher-forced pass      loss, and the score where the checker is exact
    all probes             greedy answers               the score where a checker must read text
    first sampled_probes   samples_per_probe answers    sampled_score, score_variance, the automatic review

Everything random comes from (seed, step, task): judging the same weights again, after a crash or in another process,
gives the same signal bit for bit. People's verdicts are the exception; they are whatever has been written so far.

Not here: how snapshots arrive and where signals go; an `Evaluator` is a plain object without threads or actors.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from statistics import fmean, pvariance
from typing import Any

from transformers import PreTrainedTokenizerBase

from evalsvc.config import EvaluationConfig
from evalsvc.human_verdicts import VerdictCount, VerdictTail, refused_in_words
from evalsvc.probes import Probe, by_level, check_scorable, derived_seed, note_on, probe_order, read_probes
from evalsvc.reviewer import Review, review
from evalsvc.scorers import score_text
from scheduler.allocation import ALL_PROBES, Allocation
from scheduler.signals import TaskSignal
from scheduler.task import ExactChecker, TaskSpec
from train.data.store import TokenStore
from train.generation import Completion, ProbeResult, Sampling, generate, teacher_forced
from train.model import pad_id
from train.tokenizer import stop_id


@dataclass(frozen=True, slots=True)
class FinalScore:
    """A task on the test split: mean score and loss over `num_rows` rows; both None where the task has no test row."""

    task: str
    num_rows: int
    score: float | None
    loss: float | None


class Evaluator:
    """Judges models on the probes of every task.

    Attributes:
        notes: What a reader of the results must know about these probes and settings, in words; may be empty.
    """

    def __init__(
        self,
        *,
        tokenizer: PreTrainedTokenizerBase,
        stop_id: int,
        pad_id: int,
        tasks: Sequence[TaskSpec],
        probes: Sequence[Sequence[Probe]],
        config: EvaluationConfig,
        seed: int,
    ) -> None:
        """Check that every task can be scored.

        Args:
            tokenizer: The one the probes were encoded with.
            stop_id: Token that ends an answer.
            pad_id: Any valid token id; it is masked wherever it is used.
            tasks: The run's tasks, in order.
            probes: The probes of each task, in the order of `tasks`.
            config: How to measure.
            seed: The run's seed.

        Raises:
            DataError: A task has no probe, or its checker cannot score one of them.
            ConfigError: A task is to be scored by its output rules and has none.
        """
        self._tokenizer = tokenizer
        self._stop_id = stop_id
        self._pad_id = pad_id
        self._tasks = tuple(tasks)
        self._probes = tuple(tuple(task_probes) for task_probes in probes)
        self._config = config
        self._seed = seed
        for spec, task_probes in zip(self._tasks, self._probes, strict=True):
            check_scorable(spec, task_probes)
        notes = (note_on(spec, own, config) for spec, own in zip(self._tasks, self._probes, strict=True))
        self.notes = tuple(note for note in notes if note)
        names = [spec.name for spec in self._tasks]
        self._verdicts = VerdictTail(config.human_verdicts, names) if config.human_verdicts else None
        self._num_told = 0

    def newly_refused_verdicts(self) -> str:
        """Which lines of people's verdicts were not counted since this was last asked, and why; empty if all were."""
        refused = self._verdicts.refused[self._num_told :] if self._verdicts else []
        self._num_told += len(refused)
        return refused_in_words(refused, place="evaluation.human_verdicts") if refused else ""

    def evaluate(
        self, model: Any, allocation: Allocation = ALL_PROBES, *, step: int, attempt: int, plan_version: int
    ) -> Iterator[TaskSignal]:
        """Judge every task that has probes in `allocation`, in order; each signal is given as soon as it is known."""
        for task_index in range(len(self._tasks)):
            if not allocation.num_probes or allocation.num_probes[task_index] > 0:
                yield self.evaluate_task(
                    model, task_index, allocation, step=step, attempt=attempt, plan_version=plan_version
                )

    def evaluate_task(
        self,
        model: Any,
        task_index: int,
        allocation: Allocation = ALL_PROBES,
        *,
        step: int,
        attempt: int,
        plan_version: int,
    ) -> TaskSignal:
        """Judge one task.

        Args:
            model: A transformers causal LM holding the weights of `step`; left in the mode it was found in.
            task_index: Which of the run's tasks.
            allocation: How many of its probes are read, in the task's fixed order of them.
            step: Optimiser step of the weights; the random numbers depend on it.
            attempt: Passed on to the signal; the random numbers do not depend on it.
            plan_version: Passed on to the signal.
        """
        spec = self._tasks[task_index]
        probes = self._allotted(task_index, allocation)
        readings = self._read(model, probes)
        scores = self._scores(model, spec, probes, readings)
        level_probes, level_successes = by_level(probes, scores)
        sampled_scores, verdict = self._sample(model, spec, probes, step)
        people = self._verdicts.poll()[spec.name] if self._verdicts else VerdictCount(0, 0)
        return TaskSignal(
            task=spec.name,
            attempt=attempt,
            step=step,
            plan_version=plan_version,
            num_probes=len(probes),
            score=fmean(scores),
            loss=_mean_loss(readings[: allocation.num_loss_probes or None]),
            sampled_score=fmean(map(fmean, sampled_scores)),
            score_variance=fmean(map(pvariance, sampled_scores)),
            num_rejected=verdict.num_rejected,
            num_reviewed=verdict.num_reviewed,
            format_compliance=verdict.format_compliance,
            num_human_rejected=people.num_rejected,
            num_human_reviewed=people.num_reviewed,
            level_probes=level_probes,
            level_successes=level_successes,
        )

    def final_test(self, model: Any, rows: Sequence[Sequence[Probe]]) -> list[FinalScore]:
        """Score every task on rows it was never steered by (the `test` split); nothing is sampled.

        Rows of all tasks are read together, so that batches are full and of rows of like length.

        Args:
            model: A transformers causal LM.
            rows: The test rows of each task, in the order of the run's tasks; a task may have none.
        """
        readings = iter(self._read(model, [probe for own in rows for probe in own]))
        results = []
        for spec, own in zip(self._tasks, rows, strict=True):
            read = list(islice(readings, len(own)))
            score = fmean(self._scores(model, spec, own, read)) if own else None
            results.append(FinalScore(spec.name, len(own), score, _mean_loss(read) if own else None))
        return results

    def scores(self, model: Any, rows: Sequence[Sequence[Probe]]) -> dict[str, float]:
        """Score in [0, 1] of every task that has rows, as `final_test` would find it."""
        return {result.task: result.score for result in self.final_test(model, rows) if result.score is not None}

    def _allotted(self, task_index: int, allocation: Allocation) -> Sequence[Probe]:
        """The probes to read: the first of the task's fixed order, which evaluations share, or all of it."""
        probes = self._probes[task_index]
        order = probe_order(len(probes), seed=self._seed, task=self._tasks[task_index].name)
        count = allocation.num_probes[task_index] if allocation.num_probes else len(probes)
        return [probes[place] for place in order[:count]]

    def _read(self, model: Any, probes: Sequence[Probe]) -> list[ProbeResult]:
        return teacher_forced(
            model, [probe.row for probe in probes], pad_id=self._pad_id, batch_size=self._config.batch_size
        )

    def _scores(
        self, model: Any, spec: TaskSpec, probes: Sequence[Probe], readings: Sequence[ProbeResult]
    ) -> list[float]:
        """Score of every probe by the task's checker; answers are generated unless the reading says it."""
        if isinstance(spec.checker, ExactChecker):
            return [float(reading.exact) for reading in readings]
        return self._text_scores(spec, probes, self._generate(model, probes, sampling=None))

    def _sample(
        self, model: Any, spec: TaskSpec, allotted: Sequence[Probe], step: int
    ) -> tuple[list[list[float]], Review]:
        """Scores of the sampled outputs, one list per probe, and their review."""
        probes = allotted[: self._config.sampled_probes]
        num_samples = self._config.samples_per_probe
        repeated = [probe for probe in probes for _ in range(num_samples)]
        sampling = Sampling(self._config.temperature, seed=derived_seed(self._seed, step, spec.name))
        completions = self._generate(model, repeated, sampling=sampling)
        scores = self._text_scores(spec, repeated, completions)
        verdict = review(
            spec.output_rules,
            [self._text(completion) for completion in completions],
            truncated=[not completion.stopped for completion in completions],
            prompts=[probe.prompt for probe in repeated],
        )
        return [scores[start : start + num_samples] for start in range(0, len(scores), num_samples)], verdict

    def _generate(self, model: Any, probes: Sequence[Probe], *, sampling: Sampling | None) -> list[Completion]:
        return generate(
            model,
            [probe.row.input_ids[: probe.row.answer_start].tolist() for probe in probes],
            max_new_tokens=self._config.max_new_tokens,
            stop_id=self._stop_id,
            pad_id=self._pad_id,
            batch_size=self._config.batch_size,
            sampling=sampling,
        )

    def _text_scores(self, spec: TaskSpec, probes: Sequence[Probe], completions: Sequence[Completion]) -> list[float]:
        return [
            score_text(
                spec.checker,
                answer=self._text(completion),
                reference=probe.reference,
                rules=spec.output_rules,
                prompt=probe.prompt,
                truncated=not completion.stopped,
            )
            for probe, completion in zip(probes, completions, strict=True)
        ]

    def _text(self, completion: Completion) -> str:
        text = self._tokenizer.decode(
            completion.token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        assert isinstance(text, str)
        return text


def _mean_loss(readings: Sequence[ProbeResult]) -> float:
    """Mean loss per supervised token, nats."""
    return math.fsum(reading.loss_sum for reading in readings) / sum(reading.num_tokens for reading in readings)


def make_evaluator(
    tokenizer: PreTrainedTokenizerBase,
    store: TokenStore,
    *,
    tasks: Sequence[TaskSpec],
    config: EvaluationConfig,
    seed: int,
) -> Evaluator:
    """The evaluator of a run, on the probes of its prepared data. Raises as `Evaluator` does."""
    return Evaluator(
        tokenizer=tokenizer,
        stop_id=stop_id(tokenizer),
        pad_id=pad_id(tokenizer),
        tasks=tasks,
        probes=read_probes(store, num_tasks=len(tasks), split="probe"),
        config=config,
        seed=seed,
    )
