"""A sweep on a real Ray: a shared part, trials that fork from it, and nothing trained again when it is gone on with."""

import json
from pathlib import Path

import pytest

from cluster.audit import audit
from cluster.config import LaunchConfig, RunConfig
from cluster.settings import load_config
from cluster.sweep.config import SweepConfig
from cluster.sweep.execute import resume_sweep, start_sweep
from tests.integration.tiny_run import write_config

pytestmark = [pytest.mark.ray, pytest.mark.timeout(280), pytest.mark.usefixtures("local_ray")]


def test_two_policies_of_stage_2_share_stage_1_and_a_resumed_sweep_trains_nothing_again(tmp_path: Path) -> None:
    stages = "stages=[{name: one, until: {type: step, step: 30}}, {name: two}]"
    config = SweepConfig.model_validate(
        {
            "run": [str(write_config(tmp_path))],
            "overrides": [stages],
            "space": {"stages.1.policy.type": {"type": "choice", "values": ["heat", "static"]}},
            "output": {"dir": tmp_path, "name": "sweep"},
        }
    )
    said: list[str] = []
    start_sweep(config, LaunchConfig(num_workers=1), say=said.append)
    assert "2 trials, 1 shared part(s): 60 optimiser steps; without sharing 80 (0.75)" in said[0]
    root = tmp_path / "sweep"
    report = json.loads((root / "report.json").read_text())
    assert (report["steps_trained"], report["steps_unshared"]) == (60, 80)
    assert [trial["origin"] for trial in report["trials"]] == ["trunk-000@20"] * 2
    for name in ("trial-000", "trial-001"):
        assert audit(root / "trials" / name).num_steps == 40
    winner = load_config(RunConfig, files=[root / "winner.yaml"])
    assert winner.stages[1].policy is not None
    ledgers = {path: path.read_bytes() for path in root.rglob("ledger.jsonl")}
    said.clear()
    resume_sweep(root, say=said.append)
    assert said[0].startswith("3 of 3 planned runs are done")
    assert {path: path.read_bytes() for path in root.rglob("ledger.jsonl")} == ledgers
