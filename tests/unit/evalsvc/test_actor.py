"""What the evaluation's actor hands on; it is transport, and the judgement is tested with `Evaluator`."""

import os
from pathlib import Path
from types import SimpleNamespace
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


def actor_with(model: ModelConfig, monkeypatch: pytest.MonkeyPatch, *, kept: frozenset[str] = frozenset()) -> Any:
    """The actor as a plain object that has built and opened nothing but by what is `kept` as it is."""
    for name in {"ray", "TokenStore", "load_tokenizer", "build_model", "make_evaluator"} - kept:
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


TRUST = pytest.mark.parametrize(
    ("model", "expected"),
    [
        (PretrainedModel(path="lm", lora=None, trust_remote_code=True), True),
        (PretrainedModel(path="lm", lora=LoraConfig()), False),
        (TinyModel(), False),
    ],
    ids=["trusted", "not trusted", "built"],
)


@TRUST
def test_code_that_lies_with_the_tokenizer_is_trusted_as_far_as_the_models(
    model: ModelConfig, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Any] = []
    monkeypatch.setattr(evalsvc.actor, "load_tokenizer", lambda folder, **kwargs: heard.append((folder, kwargs)))
    actor_with(model, monkeypatch, kept=frozenset({"load_tokenizer"}))
    assert heard == [(Path("tokenizer"), {"trust_remote_code": expected})]


@TRUST
def test_the_final_test_trusts_code_of_the_result_as_far_as_the_models(
    model: ModelConfig, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Any] = []
    actor = actor_with(model, monkeypatch)
    monkeypatch.setattr(evalsvc.actor, "load_export", lambda _, folder, **kwargs: heard.append((folder, kwargs)))
    monkeypatch.setattr(evalsvc.actor, "read_probes", lambda *_, **__: [])
    actor.final_test(Path("result"))
    assert heard == [(Path("result"), {"trust_remote_code": expected})]


class Engine:
    """Writes down what it is told, in order."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def __getattr__(self, method: str) -> Any:
        return SimpleNamespace(remote=lambda *values: self.heard.append((method, *values)))


def test_verdicts_that_are_not_counted_are_told_to_the_engine_before_the_decision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    actor, engine = actor_with(TinyModel(), monkeypatch), Engine()
    monkeypatch.setattr(evalsvc.actor, "load_snapshot", lambda *_: None)
    monkeypatch.setattr(evalsvc.actor, "ray", SimpleNamespace(get=lambda value: value))
    told = ["line 7: not JSON", ""]
    actor._engine = engine
    actor._evaluator = SimpleNamespace(evaluate=lambda *_, **__: ["signal"], newly_refused_verdicts=lambda: told.pop(0))
    for step in (25, 50):
        actor.evaluate(step, 0, 1, {})
    own = [call for call in engine.heard if call[0] != "probes_for"]
    assert own == [
        ("observe", ("signal",)),
        ("note_refused_verdicts", 25, "line 7: not JSON"),
        ("evaluation_done", 0, 25),
        ("observe", ("signal",)),
        ("evaluation_done", 0, 50),
    ]


def test_an_actor_that_was_made_is_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    assert actor_with(TinyModel(), monkeypatch).ready() == os.getpid()
