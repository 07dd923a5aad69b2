"""Compiled training computes what uncompiled training does, leaves no trace in names, and does without where it must.

Most tests use a backend that traces and splits a model as torch.compile does and then runs torch's own operators, since
making kernels takes long; one makes them.
"""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.unit.train.local_run import LocalRun, local_run, small_tasks
from tests.unit.train.made import llama
from tests.unit.train.samples import random_samples
from tests.unit.train.test_attention import with_adapters
from train.batch import collate
from train.compilation import compiled
from train.model import SupervisedLoss, snapshot, trainable_parameters
from train.packing import accepts_packed

CPU = torch.device("cpu")
TRACED = "aot_eager"


@pytest.fixture(autouse=True)
def _forget_graphs() -> None:
    torch.compiler.reset()


def assert_compiled_equals_uncompiled(
    model: Any, *, packed: bool = True, backend: str = TRACED, autocast: bool = False
) -> None:
    """Losses and gradients of batches of many shapes, with nothing compiled again on the way."""
    assert not packed or accepts_packed(model, setting="on", max_length=64)
    plain = SupervisedLoss(model).train()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        other = compiled(plain, packed=packed, device=CPU, in_lockstep=False, backend=backend)
    assert other is not plain
    assert list(other.model.state_dict()) == list(model.state_dict())
    assert all(parameter.grad is None for parameter in model.parameters())
    for num_rows in (3, 8, 5):
        batch = collate(random_samples(num_rows, seed=num_rows), pad_id=0, device=CPU, packed=packed)
        found = []
        for loss in (plain, other):
            with torch.compiler.set_stance("default" if loss is plain else "fail_on_recompile"):
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                    losses = loss(batch)
                losses.mean().backward()
            gradients = {name: value.grad for name, value in trainable_parameters(model).items()}
            found.append((losses.detach(), gradients))
            model.zero_grad(set_to_none=True)
        torch.testing.assert_close(*(losses for losses, _ in found), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(*(gradients for _, gradients in found), rtol=1e-4, atol=1e-5)


def test_kernels_made_for_a_model_give_its_losses_and_gradients_whatever_the_lengths() -> None:
    assert_compiled_equals_uncompiled(llama(), backend="inductor")


def test_a_compiled_model_on_padded_rows_gives_the_losses_and_gradients_of_the_uncompiled_one() -> None:
    model = llama()
    names = list(model.state_dict())
    assert_compiled_equals_uncompiled(model, packed=False)
    assert list(model.state_dict()) == names
    assert list(snapshot(model)) == list(trainable_parameters(llama()))


def test_adapters_autocast_and_gradient_checkpointing_may_be_compiled_together() -> None:
    model = llama()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert_compiled_equals_uncompiled(with_adapters(model), autocast=True)


def test_a_compiled_run_trains_the_same_and_its_checkpoints_and_result_have_the_names_of_any_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.step.compiled", partial(compiled, backend=TRACED))
    data = small_tasks(tmp_path / "data")
    runs = [local_run(tmp_path, str(on), data, train={"compile": on, "steps": 7}) for on in (False, True)]
    plain, other = (result_of(run) for run in runs)
    assert plain.keys() == other.keys()
    torch.testing.assert_close(other, plain, rtol=1e-4, atol=1e-4)
    saved = [run.store.read(6).weights for run in runs]
    assert saved[0].keys() == saved[1].keys()


def result_of(run: LocalRun) -> dict[str, torch.Tensor]:
    assert run.start().reason == "finished"
    return load_file(run.folder / "result" / "model.safetensors")


def test_without_a_compiler_training_goes_on_uncompiled_with_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    def no_compiler(*_: Any) -> Any:
        raise RuntimeError("no working C++ compiler")

    loss: Any = SupervisedLoss(llama()).train()
    with caplog.at_level(logging.WARNING):
        found = compiled(loss, packed=False, device=CPU, in_lockstep=False, backend=no_compiler)  # pyright: ignore[reportArgumentType]
    assert found is loss
    assert "train.compile is not used" in caplog.text
    assert "no working C++ compiler" in caplog.text
    losses = found(collate(random_samples(), pad_id=0, device=CPU))
    assert losses.isfinite().all()


def test_a_model_that_is_shared_out_is_not_compiled_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    loss = SupervisedLoss(llama()).train()
    with caplog.at_level(logging.WARNING):
        assert compiled(loss, packed=False, device=CPU, in_lockstep=True) is loss
    assert "fsdp2" in caplog.text
