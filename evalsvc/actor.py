"""The evaluation as a Ray actor: takes snapshots, streams one signal per task to the engine, then asks it to decide.

Transport only; the judgement is in `evalsvc.evaluator`. The constructor takes small plain data, so Ray can restart it.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch

from evalsvc.config import EvaluationConfig
from evalsvc.evaluator import FinalScore, make_evaluator
from evalsvc.probes import Probe, read_probes
from scheduler.task import TaskSpec
from train.config import ModelConfig, SplitName
from train.data.store import TokenStore
from train.export import load_export
from train.model import build_model, load_snapshot
from train.model_path import load_tokenizer


@dataclass(frozen=True, slots=True)
class EvaluationJob:
    """All the actor needs; paths must be readable from its node."""

    model: ModelConfig
    tasks: tuple[TaskSpec, ...]
    evaluation: EvaluationConfig
    store: Path
    tokenizer: Path
    seed: int
    engine_name: str
    namespace: str


@ray.remote(max_restarts=-1, max_task_retries=-1)
class EvaluationActor:
    """Evaluates snapshots one after the other, in the order they come."""

    def __init__(self, job: EvaluationJob) -> None:
        torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._store = TokenStore.open(job.store)
        tokenizer = load_tokenizer(job.tokenizer, trust_remote_code=job.model.trust_remote_code)
        self._num_tasks = len(job.tasks)
        self._trust_remote_code = job.model.trust_remote_code
        self._model = build_model(job.model, tokenizer, device=self._device, seed=job.seed).eval()
        self._evaluator = make_evaluator(tokenizer, self._store, tasks=job.tasks, config=job.evaluation, seed=job.seed)
        self._engine = ray.get_actor(job.engine_name, namespace=job.namespace)
        if ray.get_runtime_context().was_current_actor_reconstructed:
            ray.get(
                self._engine.note_restart.remote("evaluator", "model rebuilt; the snapshot in work is evaluated again")
            )

    def evaluate(
        self,
        step: int,
        attempt: int,
        plan_version: int,
        weights: Mapping[str, torch.Tensor],
        for_selection: bool = False,
    ) -> None:
        """Judge the snapshot of `step`: a signal per task as soon as it is known, then the decision.

        The engine writes a signal down while the next task is judged. Signals, then people's verdicts that cannot be
        counted, then selection scores, then the decision stand in this order in every equal run's ledger.
        """
        load_snapshot(self._model, weights)
        probes: Any = ray.get(self._engine.probes_for.remote(step))
        judged = self._evaluator.evaluate(self._model, probes, step=step, attempt=attempt, plan_version=plan_version)
        heard: list[Any] = []
        for signal in judged:
            ray.get(heard)
            heard = [self._engine.observe.remote((signal,))]
        ray.get(heard)
        if refused := self._evaluator.newly_refused_verdicts():
            ray.get(self._engine.note_refused_verdicts.remote(step, refused))
        if for_selection:
            scores = self._evaluator.scores(self._model, self._rows("selection"))
            ray.get(self._engine.observe_selection.remote(attempt, step, scores))
        ray.get(self._engine.evaluation_done.remote(attempt, step))

    def final_test(self, result: Path, split: SplitName = "test") -> list[FinalScore]:
        """Score what was exported to the folder `result` on held-out rows; test rows have not been read before."""
        load_export(self._model, result, trust_remote_code=self._trust_remote_code)
        return self._evaluator.final_test(self._model, self._rows(split))

    def ready(self) -> int:
        """Process id, once the model is built; a constructor that failed shows here."""
        return os.getpid()

    def _rows(self, split: SplitName) -> list[tuple[Probe, ...]]:
        return read_probes(self._store, num_tasks=self._num_tasks, split=split)
