"""A whole run whose model is shared out over its workers (fsdp2), gone on with by workers that each hold all of it."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cluster.audit import audit
from cluster.config import LaunchConfig, RunConfig
from cluster.run import resume_run, start_run
from cluster.run_directory import RunDirectory
from cluster.settings import load_config
from cluster.setup import gather_inputs
from scheduler.ledger import read_ledger
from scheduler.records import AttemptRecord
from tests.integration.test_resume_elsewhere import last_hash, stopped_at, stopping
from tests.integration.tiny_run import write_config
from tests.unit.train.local_run import LocalRun

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400), pytest.mark.usefixtures("local_ray")]

SETTINGS = (
    "output.name=sharded",
    "train.steps=60",
    "mixture.interval_steps=10",
    "mixture.policy={type: static}",
    "evaluation.max_new_tokens=2",
)


def test_a_run_under_fsdp2_goes_on_under_ddp_and_ends_as_one_that_was_never_shared_out(tmp_path: Path) -> None:
    config = load_config(RunConfig, files=[write_config(tmp_path)], overrides=list(SETTINGS))
    root = config.output.dir / "sharded"
    with stopping(root, after_step=10):
        start_run(config, LaunchConfig(num_workers=2, parallelism="fsdp2"))
    stopped = stopped_at(root)
    assert resume_run(root, launch_overrides=["parallelism=ddp"]) is not None
    attempts = [record for record in read_ledger(root) if isinstance(record, AttemptRecord)]
    assert [attempt.step for attempt in attempts] == [0, stopped]
    assert 0 < stopped < 60

    undisturbed = LocalRun(config=config, inputs=gather_inputs(config), folder=tmp_path / "undisturbed")
    undisturbed.start()
    assert audit(root).num_samples == audit(undisturbed.ledger).num_samples
    assert last_hash(root) == last_hash(undisturbed.ledger)
    found = load_file(RunDirectory(root).result(config) / "model.safetensors")
    expected = load_file(undisturbed.folder / "result" / "model.safetensors")
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-4)
