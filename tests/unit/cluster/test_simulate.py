import json
import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from cluster.cli import main
from cluster.settings import load_config
from cluster.simulate import SimulatedTraining, SimulationConfig, fit_run
from scheduler.ledger import LEDGER_FILE, LedgerWriter
from scheduler.setup import EngineSetup, MixtureConfig, StaticPolicy
from scheduler.simulator import Learner, LearnerConfig, MeasurementConfig, TaskLearner, simulate
from scheduler.simulator.config import (
    Forgetting,
    NoiseCurve,
    Overfit,
    Plateau,
    PowerLawCurve,
    Prerequisites,
    SaturatedCurve,
)
from scheduler.task import TaskSpec

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs" / "simulator.md").read_text(encoding="utf-8")
SMALL = """
learner:
  tasks:
    a: {rows: 500, curve: {type: power_law, scale_samples: 100}}
    b: {rows: 500, curve: {type: power_law, scale_samples: 1000}}
    n: {curve: {type: noise}}
train: {steps: 200, global_batch_size: 8}
stages: [{name: tasks}]
mixture: {interval_steps: 20}
arms:
  static: [mixture.policy.type=static]
  heat: [mixture.policy.type=heat]
num_seeds: 3
"""


def simulated(folder: Path, text: str, *arguments: str) -> Result:
    file = folder / "sim.yaml"
    file.write_text(text, encoding="utf-8")
    return CliRunner().invoke(main, ["simulate", str(file), "--out", str(folder / "out"), *arguments])


def test_every_arm_is_in_the_table_the_page_and_the_json_twin(tmp_path: Path) -> None:
    done = simulated(tmp_path, SMALL)
    assert done.exit_code == 0, done.output
    twin = json.loads((tmp_path / "out" / "simulation.json").read_text(encoding="utf-8"))
    page = (tmp_path / "out" / "simulation.html").read_text(encoding="utf-8")
    static, heat = twin["arms"]
    assert (static["name"], heat["name"]) == ("static", "heat")
    assert static["final_macro_gain"] is None
    for seed in range(3):
        gain = heat["final_macro"]["values"][seed] - static["final_macro"]["values"][seed]
        assert heat["final_macro_gain"]["values"][seed] == gain
    for arm in twin["arms"]:
        assert re.search(rf"^{arm['name']} +{arm['final_macro']['mean']:.3f} ±", done.stdout, re.MULTILINE)
        assert f'<tr data-arm="{arm["name"]}"><td>{arm["name"]}</td><td>{arm["final_macro"]["mean"]:.3f} ±' in page
        assert arm["curves"]["steps"] == list(range(0, 201, 20))
    assert len(set(static["curves"]["weights"]["a"])) == 1
    assert "src=" not in re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)


def test_a_simulation_repeated_is_the_same_file(tmp_path: Path) -> None:
    twins = []
    for _ in range(2):
        simulated(tmp_path, SMALL, "num_seeds=2")
        twins.append((tmp_path / "out" / "simulation.json").read_bytes())
    assert twins[0] == twins[1]


@pytest.mark.parametrize("names", [["traps"], ["imbalanced"], ["traps", "policies"]], ids="+".join)
def test_an_example_runs(names: list[str], tmp_path: Path) -> None:
    files = [ROOT / "examples" / "simulate" / f"{name}.yaml" for name in names]
    arguments = ["simulate", *map(str, files), "num_seeds=1", "train.steps=500", "--out", str(tmp_path)]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    for arm in (arm for file in files for arm in yaml.safe_load(file.read_text(encoding="utf-8"))["arms"]):
        assert re.search(rf"^{re.escape(arm)} ", done.stdout, re.MULTILINE), arm


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("arms.x=[learner.spread=0]", "arms.x: 'learner.spread=0' changes 'learner'; an arm may change"),
        ("arms.x=[mixture.polcy.type=static]", "arms.x: command line: 'mixture.polcy.type=static': unknown key"),
        ("arms.x=[mixture.interval_steps=999]", "arms.x: mixture.interval_steps 999 is more than train.steps 200"),
        ("stages=[{name: one}, {name: two}]", "needs an `until`"),
        ("tasks.q.tier=core", "tasks: ['q'] have cards, but learner.tasks has only ['a', 'b', 'n']"),
        ("learner.tasks.a.curve.floor_loss=9", "floor_loss 9 is not below start_loss 3"),
        (
            "tasks={a: {repetition: &cap {max_epochs: 0.1}}, b: {repetition: *cap}, n: {repetition: *cap}}",
            "arms.static: Value error, 200 steps of 8 samples need 1600 samples",
        ),
    ],
)
def test_a_wrong_setting_is_one_message_that_names_it(tmp_path: Path, override: str, message: str) -> None:
    done = simulated(tmp_path, SMALL, override)
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert "pydantic.dev" not in done.stderr


def test_a_simulation_of_nothing_says_what_to_give(tmp_path: Path) -> None:
    done = simulated(tmp_path, "num_seeds: 1\n")
    assert done.exit_code == 2
    assert "learner.tasks is empty: describe at least one task there, or fit a run with --fit RUN" in done.stderr


@pytest.mark.parametrize("text", re.findall(r"^```yml\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL))
def test_every_block_of_the_documentation_is_part_of_a_valid_simulation(text: str, tmp_path: Path) -> None:
    file = tmp_path / "sim.yaml"
    file.write_text(text, encoding="utf-8")
    config = load_config(SimulationConfig, files=[file])
    if config.learner.tasks:
        Learner(config.learner)


def test_every_setting_of_a_simulation_is_in_the_documentation() -> None:
    own = (SimulationConfig, SimulatedTraining, MeasurementConfig, LearnerConfig, TaskLearner)
    parts = (PowerLawCurve, NoiseCurve, SaturatedCurve, Overfit, Prerequisites, Plateau, Forgetting)
    missing = [
        f"{model.__name__}.{name}"
        for model in (*own, *parts)
        for name in model.model_fields
        if not re.search(rf"\b{name}\b", DOCUMENT)
    ]
    assert missing == []


def test_settings_that_a_simulation_cannot_follow_are_named(tmp_path: Path) -> None:
    done = simulated(tmp_path, SMALL, "stages.0.learning_rate=0.1", "mixture.mode=async", "num_seeds=1")
    assert done.exit_code == 0, done.output
    assert "note: Ignored in stages: learning_rate." in done.stdout
    assert "note: mixture.mode async" in done.stdout


@pytest.mark.parametrize("setting", ["micro_batch_size=2", "micro_batch_tokens=64", "max_length=64"])
def test_how_a_stage_batches_and_bounds_its_rows_is_named_as_ignored(tmp_path: Path, setting: str) -> None:
    done = simulated(tmp_path, SMALL, f"stages.0.{setting}", "num_seeds=1")
    assert f"note: Ignored in stages: {setting.split('=', maxsplit=1)[0]}." in done.stdout


def test_shares_of_tokens_are_simulated_as_shares_of_samples_and_noted(tmp_path: Path) -> None:
    samples = simulated(tmp_path, SMALL, "num_seeds=1")
    tokens = simulated(tmp_path, SMALL, "num_seeds=1", "mixture.weight_unit=tokens")
    note = "note: mixture.weight_unit tokens is taken as samples: every simulated sample is of one length."
    assert tokens.exit_code == 0, tokens.output
    assert note in tokens.stdout
    assert tokens.stdout.replace(f"{note}\n", "") == samples.stdout


def finished_run(folder: Path, *, steps: int) -> Path:
    """A run directory whose ledger is that of a simulated static run of two tasks."""
    tasks = {
        "a": {"rows": 2000, "curve": {"type": "power_law", "start_loss": 3, "scale_samples": 300, "exponent": 0.9}},
        "b": {"rows": 3000, "curve": {"type": "noise"}},
    }
    config = LearnerConfig.model_validate({"tasks": tasks, "spread": 0})
    setup = EngineSetup(
        tasks=(TaskSpec(name="a", tier="core"), TaskSpec(name="b")),
        num_rows=(2000, 3000),
        seed=0,
        total_steps=steps,
        global_batch_size=16,
        mixture=MixtureConfig(interval_steps=20),
        boundary=None,
        stage_policies=(StaticPolicy(), StaticPolicy()),
    )
    ledger = LedgerWriter(folder / "run" / LEDGER_FILE)
    measurement = MeasurementConfig(num_probes=64, loss_offset=0.0)
    simulate(setup, config, seed=0, measurement=measurement, on_record=ledger.append)
    ledger.close()
    return folder / "run"


def test_the_curves_of_a_finished_run_are_fitted_from_its_ledger_and_simulated(tmp_path: Path) -> None:
    run = finished_run(tmp_path, steps=800)
    found = fit_run(run).fits
    assert found.fitted["a"].estimates["scale_samples"].value == pytest.approx(300, rel=0.15)
    assert found.fitted["a"].estimates["exponent"].value == pytest.approx(0.9, rel=0.15)
    assert found.fitted["b"].kind == "flat"

    sim = "stages: [{name: tasks}]\nnum_seeds: 2\narms: {static: [mixture.policy.type=static], heat: []}\n"
    done = simulated(tmp_path, sim, "--fit", str(run))
    assert done.exit_code == 0, done.output
    assert "800 steps of 16 samples" in done.stdout
    assert re.search(r"^fitted a: power_law: start_loss [23]\S* ± ", done.stdout, re.MULTILINE)
    longer = simulated(tmp_path, sim, "--fit", str(run), "train.steps=4000", "num_seeds=1")
    assert "note: a was fitted up to" in longer.stdout


def test_a_task_that_cannot_be_fitted_is_refused_by_name_unless_it_is_described(tmp_path: Path) -> None:
    run = finished_run(tmp_path, steps=60)
    sim = "stages: [{name: tasks}]\nmixture: {interval_steps: 20}\nnum_seeds: 1\n"
    refused = simulated(tmp_path, sim, "--fit", str(run))
    assert refused.exit_code == 2
    assert "a: measured at 4 different exposures" in refused.stderr
    described = simulated(tmp_path, sim + "learner: {tasks: {a: {}, b: {}}}\n", "--fit", str(run))
    assert described.exit_code == 0, described.output
