"""A checkpoint gives back exactly what was put in, and anything else is refused by name."""

import json
from pathlib import Path

import pytest
import torch

from scheduler.errors import StateError
from scheduler.plan import MixturePlan
from tests.unit.train.made import llama, random_rows
from train.batch import collate
from train.checkpoint import Manifest, read_checkpoint, write_checkpoint
from train.model import SupervisedLoss, load_snapshot, snapshot, trainable_parameters
from train.stream.mixture import MixtureStream


def manifest() -> Manifest:
    stream = MixtureStream(num_rows=[7, 11], batch_size=3, seed=2**63 - 1)
    stream.set_weights([1 / 3, 2 / 3])
    for _ in range(5):
        stream.next_batch()
    plan = MixturePlan(
        version=3, source_step=2, effective_from_step=4, stage=2, stage_start_step=4, weights=(1 / 3, 1 - 1 / 3)
    )
    engine = {"heat": {"a": 0.1 + 0.2, "b": 5e-324}, "best": [None, 1e308], "open": True, "name": "é\n"}
    return Manifest(
        step=5,
        plan=plan,
        stream=stream.state_dict(),
        engine=engine,
        num_tokens=(2**60 + 1, 0),
        sequence_hash=2**63 - 1,
        num_arranged=(2**60, 0, 1),
        num_own_answers=2**61,
    )


def trained(model: torch.nn.Module, optimizer: torch.optim.Optimizer, *, seeds: range) -> None:
    loss = SupervisedLoss(model)
    for seed in seeds:
        loss(collate(random_rows(seed=seed), pad_id=0, device=torch.device("cpu"))).mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def adamw(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(trainable_parameters(model).values(), lr=1e-2, weight_decay=0.1, fused=True)


def test_what_was_written_comes_back_exactly(tmp_path: Path) -> None:
    model = llama()
    optimizer = adamw(model)
    trained(model, optimizer, seeds=range(2))
    write_checkpoint(tmp_path, manifest(), weights=snapshot(model), optimizer=optimizer)
    found, weights, state = read_checkpoint(tmp_path)
    assert found == manifest()
    assert found.plan.digest() == manifest().plan.digest()
    assert weights.keys() == snapshot(model).keys()
    assert all(torch.equal(value, weights[name]) for name, value in snapshot(model).items())
    assert state["param_groups"] == optimizer.state_dict()["param_groups"]
    for key, moments in optimizer.state_dict()["state"].items():
        assert all(torch.equal(value, state["state"][key][name]) for name, value in moments.items())


def test_training_goes_on_from_it_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    model = llama()
    optimizer = adamw(model)
    trained(model, optimizer, seeds=range(3))
    write_checkpoint(tmp_path, manifest(), weights=snapshot(model), optimizer=optimizer)
    trained(model, optimizer, seeds=range(3, 6))

    _, weights, state = read_checkpoint(tmp_path)
    other = llama(seed=9)
    load_snapshot(other, weights)
    resumed = adamw(other)
    resumed.load_state_dict(state)
    trained(other, resumed, seeds=range(3, 6))
    assert all(torch.equal(value, snapshot(other)[name]) for name, value in snapshot(model).items())


def test_a_folder_without_a_manifest_is_an_incomplete_checkpoint(tmp_path: Path) -> None:
    model = llama()
    write_checkpoint(tmp_path, manifest(), weights=snapshot(model), optimizer=adamw(model))
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(StateError, match=r"not a complete checkpoint: manifest\.json is missing"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("written", [0, 1, "2", None])
def test_another_format_is_refused(written: object, tmp_path: Path) -> None:
    model = llama()
    write_checkpoint(tmp_path, manifest(), weights=snapshot(model), optimizer=adamw(model))
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": written}))
    with pytest.raises(StateError, match=r"another version of taskheat"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["trainable.safetensors", "optimizer.pt"])
@pytest.mark.parametrize("kept_bytes", [None, 0, 100])
def test_a_truncated_or_missing_tensor_file_is_a_state_error(name: str, kept_bytes: int | None, tmp_path: Path) -> None:
    model = llama()
    optimizer = adamw(model)
    trained(model, optimizer, seeds=range(1))
    write_checkpoint(tmp_path, manifest(), weights=snapshot(model), optimizer=optimizer)
    path = tmp_path / name
    content = path.read_bytes()
    path.unlink()
    if kept_bytes is not None:
        path.write_bytes(content[:kept_bytes])
    with pytest.raises(StateError, match="is damaged"):
        read_checkpoint(tmp_path)


@pytest.mark.parametrize("damage", ['{"format": 2, "step": 5}', '{"format": 2, "st', "[]"])
def test_a_damaged_manifest_is_a_state_error(damage: str, tmp_path: Path) -> None:
    model = llama()
    write_checkpoint(tmp_path, manifest(), weights=snapshot(model), optimizer=adamw(model))
    (tmp_path / "manifest.json").write_text(damage)
    with pytest.raises(StateError, match=str(tmp_path)):
        read_checkpoint(tmp_path)
