"""A checkpoint gives back exactly what was put in, and anything else is refused by name."""

import copy
import hashlib
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from scheduler.errors import DamagedCheckpointError, StateError
from scheduler.plan import MixturePlan
from tests.unit.train.made import llama
from tests.unit.train.samples import random_samples
from train.batch import collate
from train.checkpoint import OPTIMIZER, Manifest, read_checkpoint, write_checkpoint
from train.model import SupervisedLoss, load_snapshot, snapshot, trainable_parameters
from train.parallel import Replicated
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
        stepper={"num_skipped": 1, "num_halvings": 0},
    )


def trained(model: torch.nn.Module, optimizer: torch.optim.Optimizer, *, seeds: range) -> None:
    loss = SupervisedLoss(model)
    for seed in seeds:
        loss(collate(random_samples(seed=seed), pad_id=0, device=torch.device("cpu"))).mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def adamw(model: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(trainable_parameters(model).values(), lr=1e-2, weight_decay=0.1, fused=True)


def test_what_was_written_comes_back_exactly(tmp_path: Path) -> None:
    model = llama()
    optimizer = adamw(model)
    trained(model, optimizer, seeds=range(2))
    write_checkpoint(tmp_path / "one", manifest(), weights=snapshot(model), optimizer=optimizer.state_dict())
    found, weights, state = read_checkpoint(tmp_path / "one")
    assert found == manifest()
    assert found.plan.digest() == manifest().plan.digest()
    assert weights.keys() == snapshot(model).keys()
    assert all(torch.equal(value, weights[name]) for name, value in snapshot(model).items())
    assert state["param_groups"] == optimizer.state_dict()["param_groups"]
    for key, moments in optimizer.state_dict()["state"].items():
        assert all(torch.equal(value, state["state"][key][name]) for name, value in moments.items())


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what memory a file backs")
def test_reading_takes_no_memory_beside_the_files_own_pages(tmp_path: Path) -> None:
    size = 2**24
    tensors = {"a": torch.ones(size)}
    write_checkpoint(tmp_path / "one", manifest(), weights=tensors, optimizer={"state": {0: tensors}})
    before = own_memory()
    found = read_checkpoint(tmp_path / "one")
    assert float(found.weights["a"].sum()) == float(found.optimizer["state"][0]["a"].sum()) == size
    assert own_memory() - before < 2**24


def own_memory() -> int:
    """Bytes of this process that no file backs."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def test_an_optimiser_that_was_loaded_needs_the_files_no_more(tmp_path: Path) -> None:
    model = llama()
    optimizer = adamw(model)
    trained(model, optimizer, seeds=range(2))
    expected = copy.deepcopy(optimizer.state_dict())
    write_checkpoint(tmp_path / "one", manifest(), weights=snapshot(model), optimizer=optimizer.state_dict())
    other = adamw(model)
    Replicated(model).load_optimizer_state(other, read_checkpoint(tmp_path / "one").optimizer)
    with (tmp_path / "one" / OPTIMIZER).open("r+b") as file:
        file.write(bytes((tmp_path / "one" / OPTIMIZER).stat().st_size))
    assert other.state_dict()["param_groups"] == expected["param_groups"]
    for key, moments in expected["state"].items():
        assert all(torch.equal(value, other.state_dict()["state"][key][name]) for name, value in moments.items())


def test_training_goes_on_from_it_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    model = llama()
    optimizer = adamw(model)
    trained(model, optimizer, seeds=range(3))
    write_checkpoint(tmp_path / "one", manifest(), weights=snapshot(model), optimizer=optimizer.state_dict())
    trained(model, optimizer, seeds=range(3, 6))

    _, weights, state = read_checkpoint(tmp_path / "one")
    other = llama(seed=9)
    load_snapshot(other, weights)
    resumed = adamw(other)
    resumed.load_state_dict(state)
    trained(other, resumed, seeds=range(3, 6))
    assert all(torch.equal(value, snapshot(other)[name]) for name, value in snapshot(model).items())


@pytest.fixture
def written(tmp_path: Path) -> Path:
    model = llama()
    optimizer = adamw(model)
    trained(model, optimizer, seeds=range(1))
    write_checkpoint(tmp_path / "step-5", manifest(), weights=snapshot(model), optimizer=optimizer.state_dict())
    return tmp_path / "step-5"


FILES = ["trainable.safetensors", "optimizer.pt", "manifest.json"]


def test_its_folder_appears_whole_and_leaves_nothing_beside_it(written: Path) -> None:
    assert sorted(path.name for path in written.iterdir()) == sorted(FILES)
    assert list(written.parent.iterdir()) == [written]


def test_a_writer_that_died_leaves_no_checkpoint_and_does_not_hinder_the_next(tmp_path: Path) -> None:
    model, partial = llama(), tmp_path / ".partial-step-5"
    partial.mkdir()
    (partial / "stale").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"expected torch\.Tensor"):
        write_checkpoint(
            tmp_path / "step-5", manifest(), weights={"not": "a tensor"}, optimizer=adamw(model).state_dict()
        )  # type: ignore[dict-item]
    assert not (tmp_path / "step-5").exists()
    write_checkpoint(tmp_path / "step-5", manifest(), weights=snapshot(model), optimizer=adamw(model).state_dict())
    assert read_checkpoint(tmp_path / "step-5").manifest == manifest()
    assert not partial.exists()


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def zero_the_end(path: Path) -> None:
    """What a file system may leave of a file whose last blocks never reached the disk."""
    content = path.read_bytes()
    path.write_bytes(content[:-64] + bytes(64))


def turn_into_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "damage", [truncate, lengthen, empty, flip_a_bit, zero_the_end, Path.unlink, turn_into_a_folder]
)
@pytest.mark.parametrize("name", FILES)
def test_any_damage_to_any_file_is_found_and_named(name: str, damage: Callable[[Path], None], written: Path) -> None:
    if (name, damage) == ("manifest.json", lengthen):
        pytest.skip("white space after JSON changes nothing")
    damage(written / name)
    with pytest.raises(DamagedCheckpointError, match=f"the checkpoint step-5 is damaged: {name} "):
        read_checkpoint(written)


def test_the_message_says_what_differs(written: Path) -> None:
    size = (written / "optimizer.pt").stat().st_size
    truncate(written / "optimizer.pt")
    with pytest.raises(DamagedCheckpointError, match=f"has {size // 2} bytes, {size} were written"):
        read_checkpoint(written)
    (written / "optimizer.pt").write_bytes(bytes(size))
    with pytest.raises(DamagedCheckpointError, match="has the size that was written, but other content"):
        read_checkpoint(written)


def test_one_changed_digit_in_the_manifest_is_found(written: Path) -> None:
    path = written / "manifest.json"
    text = path.read_text()
    assert '"step": 5' in text
    path.write_text(text.replace('"step": 5', '"step": 6'))
    with pytest.raises(DamagedCheckpointError, match=r"manifest\.json was altered"):
        read_checkpoint(written)


def test_files_of_another_checkpoint_are_found(written: Path, tmp_path: Path) -> None:
    model = llama(seed=3)
    write_checkpoint(tmp_path / "other", manifest(), weights=snapshot(model), optimizer=adamw(model).state_dict())
    (tmp_path / "other/trainable.safetensors").replace(written / "trainable.safetensors")
    with pytest.raises(DamagedCheckpointError, match=r"trainable\.safetensors .* other content"):
        read_checkpoint(written)


@pytest.mark.parametrize("format_", [0, 3, 5, "4", None])
def test_another_format_is_refused_and_not_taken_for_damage(format_: object, written: Path) -> None:
    path = written / "manifest.json"
    body = {**json.loads(path.read_text()), "format": format_}
    del body["blake2b"]
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    for hashed in ({}, {"blake2b": hashlib.blake2b(text.encode(), digest_size=20).hexdigest()}):
        path.write_text(json.dumps({**body, **hashed}))
        with pytest.raises(StateError, match="another version of taskheat") as caught:
            read_checkpoint(written)
        assert not isinstance(caught.value, DamagedCheckpointError)


@pytest.mark.parametrize("damage", ['{"step": 5}', '{"format": 3, "st', "[]", "[" * 10_000, "\0"])
def test_a_manifest_that_is_none_is_damage(damage: str, written: Path) -> None:
    (written / "manifest.json").write_text(damage)
    with pytest.raises(DamagedCheckpointError, match=r"step-5 is damaged: manifest\.json"):
        read_checkpoint(written)
