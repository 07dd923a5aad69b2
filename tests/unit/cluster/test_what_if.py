"""Two mixtures on the same signals, side by side; what cannot be compared is refused."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from cluster.cli import main
from cluster.views.what_if_text import what_if_text
from cluster.what_if import NOTE, altered_setup, what_if
from scheduler.errors import ConfigError
from scheduler.ledger import LedgerWriter
from scheduler.policy_config import HeatPolicy, OdmPolicy, StaticPolicy
from scheduler.setup import StepBoundary
from tests.unit.evalsvc.report import simulated_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("run")
    writer = LedgerWriter(root / "ledger" / "ledger.jsonl")
    for record in simulated_run.simulated_records():
        writer.append(record)
    writer.close()
    return root


def written(folder: Path, text: str) -> Path:
    file = folder / "other.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_a_part_of_the_mixture_is_laid_over_the_runs_own(tmp_path: Path) -> None:
    setup = simulated_run.setup()
    file = written(tmp_path, "mixture: {guards: {ceiling: 0.5}, heat: {decay_weight: 0.9}}")
    altered = altered_setup(setup, [file], ["mixture.policy.strength=7"])
    assert altered.mixture.guards == setup.mixture.guards.model_copy(update={"ceiling": 0.5})
    assert altered.mixture.heat.decay_weight == 0.9
    assert altered.stage_policies == (HeatPolicy(strength=1.0), HeatPolicy(strength=7))
    assert altered.boundary == setup.boundary


def test_stages_are_taken_whole_with_their_end_and_their_policies(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "mixture: {policy: {type: odm}}\n"
        "stages: [{name: a, until: {type: step, step: 75}, policy: {type: static}, learning_rate: 1}, {name: b}]",
    )
    altered = altered_setup(simulated_run.setup(), [file], [])
    assert altered.stage_policies == (StaticPolicy(), OdmPolicy())
    assert altered.boundary == StepBoundary(step=75)


def test_with_nothing_changed_the_plans_are_equal_and_nobody_gains(run: Path) -> None:
    found = what_if(run, [], ["mixture.guards.hold_core=true"])
    assert (found.changed, found.mean_total_variation) == ((), 0.0)
    assert all(task.gain == 0.0 for task in found.tasks)


def test_tasks_that_gain_come_first_and_what_some_gain_others_lose(run: Path) -> None:
    found = what_if(run, [], ["mixture.policy.type=odm"])
    gains = [task.gain for task in found.tasks]
    assert gains == sorted(gains, reverse=True)
    assert gains[0] > 0.01
    assert sum(gains) == pytest.approx(0.0, abs=1e-9)
    assert "mixture.policy: heat → odm" in found.changed
    last = found.decisions[-1]
    mine = sum(abs(a - b) for a, b in zip(last.weights, last.other_weights, strict=True)) / 2
    assert last.total_variation == pytest.approx(mine)


def test_the_text_names_changes_gains_and_what_it_cannot_tell(run: Path) -> None:
    text = what_if_text(what_if(run, [], ["mixture.policy.type=odm"]))
    assert NOTE in text
    assert "6 decisions" in text
    assert "lcr -" in text


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("mixture.mode=sync", "mixture.mode: 'sync' cannot be compared with the run's 'lag1'"),
        ("mixture.interval_steps=5", "mixture.interval_steps: 5 cannot be compared with the run's 25"),
        ("mixture.weight_unit=tokens", "mixture.weight_unit: 'tokens' cannot be compared"),
        ("mixture.polcy=3", "did you mean mixture.policy"),
        ("mixture.prior={type: explicit, weights: {chess: 1}}", "chess"),
    ],
)
def test_what_the_signals_hang_on_cannot_be_changed_and_mistakes_are_named(
    run: Path, override: str, message: str
) -> None:
    found = CliRunner().invoke(main, ["replay", str(run), override])
    assert (found.exit_code, message in found.stderr) == (2, True), found.stderr


def test_a_run_without_a_decision_has_nothing_to_compare(tmp_path: Path) -> None:
    writer = LedgerWriter(tmp_path / "ledger" / "ledger.jsonl")
    writer.append(simulated_run.simulated_records()[0])
    with pytest.raises(ConfigError, match="nothing to compare"):
        what_if(tmp_path, [], ["mixture.policy.type=odm"])


def test_the_command_takes_a_file_and_prints_json_and_json_alone_is_a_usage_error(run: Path, tmp_path: Path) -> None:
    file = written(tmp_path, "mixture: {policy: {type: static}}")
    done = CliRunner().invoke(main, ["replay", str(run), "--policy", str(file), "--json"])
    assert done.exit_code == 0, done.output
    data = json.loads(done.stdout)
    assert data["note"] == NOTE
    assert len(data["decisions"][0]["other_weights"]) == 4
    assert CliRunner().invoke(main, ["replay", str(run), "--json"]).exit_code == 2
