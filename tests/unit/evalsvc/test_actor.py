"""What the evaluation's actor hands on; it is transport, and the judgement is tested with `Evaluator`."""

import os
from pathlib import Path
from typing import Any

import pytest

import evalsvc.actor
from evalsvc.actor import EvaluationActor, EvaluationJob
from evalsvc.config import EvaluationConfig
from train.config import LoraConfig, ModelConfig, PretrainedModel, TinyModel


class Anything:
    """Stands in for what the constructor opens or builds, the model included."""

    def __getattr__(self, _: str) -> Any:
        return lambda *_, **__: self

    was_current_actor_reconstructed = False


def actor_with(model: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The actor as a plain object that has built and opened nothing."""
    for name in ("ray", "TokenStore", "load_tokenizer", "build_model", "make_evaluator"):
        monkeypatch.setattr(evalsvc.actor, name, Anything() if name in ("ray", "TokenStore") else lambda *_, **__: made)
    made = Anything()
    job = EvaluationJob(
        model=model,
        tasks=(),
        evaluation=EvaluationConfig(),
        store=Path("store"),
        tokenizer=Path("tokenizer"),
        seed=0,
        engine_name="heat",
        namespace="tests",
    )
    kind: Any = EvaluationActor
    return kind.__ray_metadata__.modified_class(job)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (PretrainedModel(path="lm", lora=None, trust_remote_code=True), True),
        (PretrainedModel(path="lm", lora=LoraConfig()), False),
        (TinyModel(), False),
    ],
    ids=["trusted", "not trusted", "built"],
)
def test_the_final_test_trusts_code_of_the_result_as_far_as_the_models(
    model: ModelConfig, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Any] = []
    actor = actor_with(model, monkeypatch)
    monkeypatch.setattr(evalsvc.actor, "load_export", lambda _, folder, **kwargs: heard.append((folder, kwargs)))
    monkeypatch.setattr(evalsvc.actor, "read_probes", lambda *_, **__: [])
    actor.final_test(Path("result"))
    assert heard == [(Path("result"), {"trust_remote_code": expected})]


def test_an_actor_that_was_made_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    assert actor_with(TinyModel(), monkeypatch).ready() == os.getpid()
