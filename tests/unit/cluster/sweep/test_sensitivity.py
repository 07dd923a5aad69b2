"""A nudge moves a group's share and keeps every other proportion; forks hold the mixture still."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.config import RunConfig
from cluster.run_directory import RunDirectory
from cluster.settings import dump_config, load_config
from cluster.sweep.directory import trial_config
from cluster.sweep.sensitivity import SensitivityConfig, _planned, nudged
from evalsvc.report.sensitivity import SCHEMA_VERSION, Cell, SensitivityReport
from evalsvc.report.sensitivity_page import write_sensitivity
from scheduler.errors import ConfigError, RunDirectoryError
from tests.unit.train.local_run import STEPS, LocalRun, local_run, small_tasks


@given(st.lists(st.floats(0.01, 1), min_size=2, max_size=6), st.floats(-1, 1))
def test_a_nudge_moves_the_share_and_keeps_the_other_proportions(raw: list[float], nudge: float) -> None:
    weights = {str(number): one / sum(raw) for number, one in enumerate(raw)}
    if not 1e-6 < weights["0"] + nudge < 1 - 1e-6:
        return
    after = nudged(weights, ["0"], nudge)
    assert after["0"] == pytest.approx(weights["0"] + nudge)
    assert sum(after.values()) == pytest.approx(1)
    for task in weights.keys() - {"0"}:
        assert after[task] / after["1"] == pytest.approx(weights[task] / weights["1"])


def test_a_nudge_beyond_all_or_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"-0\.6 on a, whose share is 0\.500"):
        nudged({"a": 0.5, "b": 0.5}, ["a"], -0.6)


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> LocalRun:
    folder = tmp_path_factory.mktemp("sensitivity")
    run = local_run(folder, "parent", small_tasks(folder), train={"checkpoint_at": [3, 6], "keep_checkpoints": 1})
    run.start()
    (run.folder / "config.yaml").write_text(dump_config(run.config), encoding="utf-8")
    return run


def planned(parent: LocalRun, **settings: Any) -> list[Any]:
    config = SensitivityConfig.model_validate({"run": parent.folder, "group": ["copy"], "steps": 3, **settings})
    return _planned(config, RunDirectory(parent.folder), load_config(RunConfig, files=[parent.folder / "config.yaml"]))


def test_each_phase_has_a_fork_that_stays_and_one_for_each_nudge(parent: LocalRun, tmp_path: Path) -> None:
    found = planned(parent, phases=[3, 6])
    assert [(cell.phase, cell.nudge) for _, cell in found] == [(p, n) for p in (3, 6) for n in (0.0, -0.1, 0.1)]
    spec, cell = found[2]
    assert spec.origin == (str(parent.folder), 3)
    run = trial_config(parent.folder / "config.yaml", spec, folder=tmp_path)
    assert (run.train.steps, run.train.stop_after, run.mixture.policy.type) == (STEPS, 9, "static")
    fork = local_run(
        tmp_path,
        "fork",
        [Path(source.path) for source in parent.config.data.sources],
        mixture=run.mixture.model_dump(mode="json"),
        train=run.train.model_dump(mode="json"),
        stages=[stage.model_dump(mode="json") for stage in run.stages],
    )
    from cluster.fork import Fork

    Fork(RunDirectory(parent.folder), 3, ()).plant(RunDirectory(fork.folder), fork.inputs.engine)
    assert fork.start().step == 9
    weights = dict(zip(cell.weights, fork.store.read(9).manifest.plan.weights, strict=True))
    assert weights == pytest.approx(cell.weights)


@pytest.mark.parametrize(
    ("settings", "error", "said"),
    [
        ({"phases": [9]}, RunDirectoryError, r"no checkpoint at \[9\]; there are \[3, 6, 12\].*train.checkpoint_at"),
        ({"group": ["nobody"]}, ConfigError, r"group: \['nobody'\] cannot be nudged"),
        ({"phases": [6], "steps": 6}, ConfigError, "must end by step 14"),
        ({"phases": [6], "steps": 2}, ConfigError, "give a multiple of the interval of 3"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_it_is_begun(
    settings: dict[str, Any], error: type[Exception], said: str, parent: LocalRun
) -> None:
    with pytest.raises(error, match=said):
        planned(parent, **settings)


def test_the_page_shows_every_fork(tmp_path: Path) -> None:
    cells = tuple(
        Cell(phase, nudge, 0.3 + nudge, {"a": 0.3 + nudge, "b": 0.7 - nudge}, {"a": 0.5, "b": 0.25 + nudge}, change)
        for phase in (100, 200)
        for nudge, change in ((0.0, {"a": 0.0, "b": 0.0}), (0.1, {"a": 0.0, "b": 0.1}))
    )
    report = SensitivityReport(SCHEMA_VERSION, "title", "runs/x", ("a",), 40, ("a", "b"), cells)
    page = write_sensitivity(report, tmp_path).read_text(encoding="utf-8")
    assert cells[1].behaviour_change == pytest.approx(0.05)
    for text in ("<td>0.400</td>", "+0.1", "<td>0.050</td>", "runs/x"):
        assert text in page
