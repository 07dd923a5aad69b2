import json
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

from cluster.cli import main
from cluster.data import TrainedTokenizer
from cluster.run_directory import RunDirectory
from cluster.trace import TracedRun, trace_output, trace_sample
from scheduler.errors import DataError
from scheduler.keeper import HeatKeeper
from scheduler.ledger import LEDGER_FILE
from scheduler.setup import EngineSetup, HeatPolicy, MixtureConfig, StepBoundary
from scheduler.signals import IntervalReport, TaskSignal
from scheduler.task import TaskSpec
from train.config import DataConfig
from train.data.prepare import Prepared, prepare
from train.data.store import TokenStore
from train.stream.batch import Batch, sequence_hash
from train.stream.mixture import MixtureStream

INTERVAL, TOTAL, BATCH, CRASH, CHECKPOINT = 10, 60, 8, 40, 20
Trained = list[tuple[int, int, int]]
"""(step, task, row) of every sample that counts."""


def prepare_rows(folder: Path, *, seed: int = 3) -> Prepared:
    for name, count in (("sum", 40), ("copy", 60)):
        rows = [{"id": f"r{n}", "instruction": f"{name} {n}", "output": f"{name} gives {n * n}"} for n in range(count)]
        rows.append({"id": "again", "instruction": f"{name} 0", "output": f"{name} gives 0"})
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = DataConfig.model_validate({"sources": [folder / "sum.jsonl", folder / "copy.jsonl"]})
    return prepare(
        config,
        specs={},
        tokenizer_source=TrainedTokenizer(vocab_size=320),
        chat_template="auto",
        out_dir=folder / "runs" / ".prepared",
        seed=seed,
    )


class Workers:
    """Trains what the stream says and remembers it; a restart forgets what came after the checkpoint."""

    def __init__(self, keeper: HeatKeeper, setup: EngineSetup, store: TokenStore) -> None:
        self.keeper, self.setup, self.store = keeper, setup, store
        self.stream = MixtureStream(num_rows=setup.num_rows, batch_size=BATCH, seed=setup.seed)
        self.trained: Trained = []
        self.hash = 0
        self.saved: tuple[dict[str, object], Trained, int] = (self.stream.state_dict(), [], 0)

    def attempt(self, *, start: int, stop: int) -> None:
        state, self.trained, self.hash = self.saved[0], list(self.saved[1]), self.saved[2]
        self.stream.load_state_dict(state)
        attempt = self.keeper.begin_attempt(f"from {start}", start)
        for step in range(start, stop + 1, INTERVAL):
            plan = self.keeper.memory.plan_in_force(step)
            self.keeper.observe_interval(self.report(attempt, step, plan.version))
            if step == CHECKPOINT:
                self.keeper.checkpoint(step)
                self.saved = (self.stream.state_dict(), list(self.trained), self.hash)
            for task in self.setup.tasks:
                self.keeper.observe(self.signal(task.name, attempt, step))
            self.keeper.evaluation_done(attempt, step)
            self.stream.set_weights(plan.weights)
            for _ in range(INTERVAL if step < stop else 0):
                self.train(self.stream.next_batch())

    def train(self, batch: Batch) -> None:
        slots = zip(batch.tasks.tolist(), batch.rows.tolist(), strict=True)
        self.trained += [(batch.step, task, row) for task, row in slots]
        self.hash = (self.hash + sequence_hash(batch)) & ((1 << 63) - 1)

    def report(self, attempt: int, step: int, version: int) -> IntervalReport:
        tokens = [0, 0]
        for _, task, row in self.trained:
            tokens[task] += int(self.store.supervised_lengths(task)[row])
        samples = tuple(self.stream.num_samples.tolist())
        return IntervalReport(attempt, step, version, samples, tuple(tokens), (1.0, 1.0), self.hash)

    def signal(self, task: str, attempt: int, step: int) -> TaskSignal:
        score = 0.1 if task == "sum" else 0.5 + step / 200
        version = self.keeper.memory.engine.plan.version
        return TaskSignal(task, attempt, step, version, 8, score, 1.0, score, 0.05, 1, 8, 1.0)


def train_run(root: Path, prepared: Prepared) -> Trained:
    setup = EngineSetup(
        tasks=tuple(TaskSpec(name=name) for name in prepared.task_names),
        num_rows=prepared.num_rows["train"],
        seed=11,
        total_steps=TOTAL,
        global_batch_size=BATCH,
        mixture=MixtureConfig(interval_steps=INTERVAL),
        boundary=StepBoundary(step=30),
        stage_policies=(HeatPolicy(), HeatPolicy()),
    )
    keeper = HeatKeeper.open(root / LEDGER_FILE, setup)
    workers = Workers(keeper, setup, TokenStore.open(prepared.store_path))
    workers.attempt(start=0, stop=CRASH)
    workers.attempt(start=CHECKPOINT, stop=TOTAL)
    keeper.end(TOTAL, "finished")
    RunDirectory(root).update_manifest(prepared=str(prepared.path))
    return workers.trained


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trace")


@pytest.fixture(scope="module")
def prepared(folder: Path) -> Prepared:
    return prepare_rows(folder)


@pytest.fixture(scope="module")
def trained(folder: Path, prepared: Prepared) -> Trained:
    """What the workers of the run `folder/runs/demo` trained."""
    return train_run(folder / "runs" / "demo", prepared)


@pytest.fixture
def run(folder: Path, trained: Trained) -> TracedRun:  # noqa: ARG001
    return TracedRun.open(folder / "runs" / "demo")


def test_every_row_is_traced_to_the_very_steps_it_was_trained_at(run: TracedRun, trained: Trained) -> None:
    counts = Counter((task, row) for _, task, row in trained)
    for task, name in enumerate(run.store.task_names):
        assert run.times_trained[task].tolist() == [counts[task, row] for row in range(len(run.times_trained[task]))]
        for row in range(0, len(run.times_trained[task]), 5):
            row_id = run.store.row_id(task, row)
            (trace,) = trace_sample(run, row_id, task=name).samples
            steps = [step for step, other, number in trained if (other, number) == (task, row)]
            assert [exposure.step for exposure in trace.exposures] == steps
            assert [exposure.epoch for exposure in trace.exposures] == list(range(1, len(steps) + 1))


def test_an_exposure_names_the_plan_the_stage_and_the_weight_of_its_step(run: TracedRun) -> None:
    plans = {boundary.report.step: boundary.plan for boundary in run.history.boundaries}
    traces = [trace for n in range(60) for trace in trace_sample(run, f"r{n}", task="copy").samples]
    exposures = [exposure for trace in traces for exposure in trace.exposures]
    assert {exposure.stage for exposure in exposures} == {1, 2}
    for exposure in exposures:
        plan = plans[exposure.step // INTERVAL * INTERVAL]
        assert (exposure.plan_version, exposure.stage, exposure.weight) == (plan.version, plan.stage, plan.weights[1])


def test_a_held_out_row_is_said_to_be_held_out_and_never_trained(run: TracedRun, folder: Path) -> None:
    row_id = run.store.row_id(0, 0, "probe")
    (trace,) = trace_sample(run, row_id, task="sum").samples
    assert (trace.sample.split, trace.exposures) == ("probe", ())
    done = CliRunner().invoke(main, ["trace", str(folder / "runs" / "demo"), "--sample", row_id, "--task", "sum"])
    assert "held out as probe row and never trained" in done.stdout


def test_an_id_of_several_rows_lists_them_all_and_a_task_narrows(run: TracedRun) -> None:
    assert {trace.sample.task for trace in trace_sample(run, "r7").samples} == {"sum", "copy"}
    (trace,) = trace_sample(run, "r7", task="sum").samples
    assert (trace.sample.answer, trace.sample.line) == ("sum gives 49", 8)
    assert trace_sample(run, "sum.jsonl:8").samples == (trace,)


def test_a_refused_row_is_found_by_its_place_with_the_reason(run: TracedRun) -> None:
    found = trace_sample(run, "sum:41")
    assert found.samples == ()
    assert [refusal.rule for refusal in found.refusals] == ["duplicate"]


def test_an_unknown_id_names_the_nearest_and_an_unknown_task_the_known(run: TracedRun) -> None:
    with pytest.raises(DataError, match=r"'r588'.*r58"):
        trace_sample(run, "r588")
    with pytest.raises(DataError, match="'summ'; it has sum, copy"):
        trace_sample(run, "r1", task="summ")


def test_the_training_row_behind_an_output_comes_first_with_how_often_it_was_trained(
    run: TracedRun, trained: Trained
) -> None:
    answer = run.store.examples(1)[3].answer
    first, *others = trace_output(run, answer.upper().replace(" ", "  "), top=4)
    assert (first.sample.answer, first.sample.row, first.similarity) == (answer, 3, 1.0)
    assert len(others) == 3
    place = (run.store.task_names.index(first.sample.task), first.sample.row)
    assert first.times_trained == sum((task, row) == place for _, task, row in trained)
    assert {found.sample.task for found in trace_output(run, answer, top=9, task="sum")} == {"sum"}
    assert trace_output(run, "率率率", top=3) == []
    run.times_trained[1][3] = 0
    assert trace_output(run, answer, top=1)[0].sample.row != 3


def test_other_data_than_the_run_was_trained_on_is_refused(folder: Path, trained: Trained) -> None:  # noqa: ARG001
    other = prepare_rows(folder, seed=4)
    with pytest.raises(DataError, match="is not the data this run was trained on"):
        TracedRun.open(folder / "runs" / "demo", prepared=other.path)


def test_a_run_that_does_not_say_where_its_data_lies_finds_it_beside_itself(
    folder: Path,
    prepared: Prepared,
    trained: Trained,  # noqa: ARG001
) -> None:
    root = folder / "runs" / "demo"
    manifest = RunDirectory(root).manifest
    before = manifest.read_text(encoding="utf-8")
    manifest.write_text("{}", encoding="utf-8")
    try:
        assert TracedRun.open(root).prepared == prepared.path
    finally:
        manifest.write_text(before, encoding="utf-8")


def test_the_json_holds_what_the_text_says(folder: Path, run: TracedRun) -> None:
    root = str(folder / "runs" / "demo")
    row_id = run.store.row_id(0, 5)
    done = CliRunner().invoke(main, ["trace", root, "--sample", row_id, "--task", "sum", "--json"])
    (found,) = json.loads(done.stdout)["samples"]
    assert (found["sample"]["id"], found["sample"]["split"]) == (row_id, "train")
    assert len(found["exposures"]) == run.times_trained[0][5] > 0
    done = CliRunner().invoke(main, ["trace", root, "--output", "sum gives 49", "--top", "2", "--json"])
    assert len(json.loads(done.stdout)) == 2
    assert CliRunner().invoke(main, ["trace", root]).exit_code == 2
