"""An honest ledger is proved, and any one number or line of it that is changed is found and named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.audit import audit
from scheduler.errors import LedgerError, ReplayMismatchError
from scheduler.keeper import HeatKeeper
from scheduler.setup import EngineSetup
from scheduler.signals import IntervalReport
from tests.unit.scheduler.made import INTERVAL, setup, signal
from train.stream.batch import sequence_hash
from train.stream.mixture import MixtureStream

STEPS, BATCH, NUM_ROWS = 110, 16, (90, 400, 50)
HASH_MASK = (1 << 63) - 1
SCORES = {"a": 0.1, "b": 0.9, "c": 0.4}


def made_setup(mode: str) -> EngineSetup:
    return setup(num_rows=NUM_ROWS, total_steps=STEPS, batch_size=BATCH, mode=mode)


class Workers:
    """A worker group that trains what the stream gives and reports it, as the loop does, but computes no gradient."""

    def __init__(self, keeper: HeatKeeper, mode: str) -> None:
        self.keeper, self.mode = keeper, mode
        self.stream = MixtureStream(num_rows=NUM_ROWS, batch_size=BATCH, seed=0)
        self.hash, self.version, self.attempt = 0, 0, keeper.begin_attempt("first", 0)
        self.saved: tuple[dict[str, Any], int, int] | None = None

    def train(self, *, until: int, save_at: int | None = None) -> None:
        for step in range(self.stream.step, until):
            if step % INTERVAL == 0:
                self.boundary(step)
                if step == save_at:
                    self.keeper.checkpoint(step)
                    self.saved = self.stream.state_dict(), self.hash, self.version
                if self.mode != "sync":
                    self.evaluate(step)
            self.hash = (self.hash + sequence_hash(self.stream.next_batch())) & HASH_MASK

    def restart(self) -> None:
        """Go on from the saved checkpoint."""
        assert self.saved is not None
        state, self.hash, self.version = self.saved
        self.stream = MixtureStream(num_rows=NUM_ROWS, batch_size=BATCH, seed=0)
        self.stream.load_state_dict(state)
        self.attempt = self.keeper.begin_attempt("second", self.stream.step)

    def boundary(self, step: int) -> None:
        if self.saved is not None and step == self.saved[0]["step"]:
            return
        if self.mode == "sync":
            self.evaluate(step)
        plan = self.keeper.ready_plan(step)
        assert plan is not None
        self.version = plan.version
        self.stream.set_weights(plan.weights)
        self.report(step)

    def report(self, step: int) -> None:
        served = tuple(self.stream.num_samples.tolist())
        self.keeper.observe_interval(
            IntervalReport(
                attempt=self.attempt,
                step=step,
                plan_version=self.version,
                num_samples=served,
                num_tokens=tuple(4 * count for count in served),
                train_loss=(1.0, 1.0, 1.0),
                sequence_hash=self.hash,
            )
        )

    def evaluate(self, step: int) -> None:
        for name, score in SCORES.items():
            self.keeper.observe(signal(name, step=step, attempt=self.attempt, score=score, plan_version=self.version))
        self.keeper.evaluation_done(self.attempt, step)


def write(path: Path, mode: str = "lag1", *, restarted: bool = False) -> Path:
    """A finished run's ledger; `restarted`: it dies at step 90 and goes on from step 50."""
    keeper = HeatKeeper.open(path, made_setup(mode))
    workers = Workers(keeper, mode)
    if restarted:
        workers.train(until=90, save_at=50)
        workers.restart()
    workers.train(until=STEPS)
    workers.report(STEPS)
    keeper.end(STEPS, "finished")
    return path


def changed(path: Path, change: Callable[[list[dict[str, Any]]], None]) -> Path:
    records = [json.loads(line) for line in path.read_text().splitlines()]
    change(records)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def reports(records: list[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    return {record["report"]["step"]: record["report"] for record in records if record["kind"] == "interval"}


@pytest.mark.parametrize("mode", ["lag1", "sync", "async"])
@pytest.mark.parametrize("restarted", [False, True], ids=["in one go", "restarted"])
def test_an_honest_ledger_is_proved_step_by_step(mode: str, restarted: bool, tmp_path: Path) -> None:
    proved = audit(write(tmp_path / "ledger.jsonl", mode, restarted=restarted))
    assert (proved.num_steps, sum(proved.num_samples)) == (STEPS, STEPS * BATCH)
    assert proved.num_attempts == 1 + restarted
    assert proved.epochs == tuple(count / rows for count, rows in zip(proved.num_samples, NUM_ROWS, strict=True))
    assert proved.num_samples == audit(write(tmp_path / "other.jsonl", mode)).num_samples
    assert "110 steps, 1760 samples recomputed" in str(proved)


def test_a_run_that_is_still_going_on_is_proved_as_far_as_it_has_come(tmp_path: Path) -> None:
    workers = Workers(HeatKeeper.open(tmp_path / "ledger.jsonl", made_setup("lag1")), "lag1")
    workers.train(until=60)
    assert audit(tmp_path / "ledger.jsonl").num_steps == 50


def test_a_run_directory_is_found_its_ledger(tmp_path: Path) -> None:
    write(tmp_path / "ledger" / "ledger.jsonl")
    assert audit(tmp_path).num_steps == STEPS


@pytest.mark.parametrize("step", [50, 75, STEPS])
def test_a_swapped_sample_is_found_at_its_boundary(step: int, tmp_path: Path) -> None:
    def swap(records: list[dict[str, Any]]) -> None:
        reports(records)[step]["sequence_hash"] ^= 1

    path = changed(write(tmp_path / "ledger.jsonl"), swap)
    with pytest.raises(ReplayMismatchError, match=rf"step {step}: .*equal counts, but other rows"):
        audit(path)


def test_a_miscounted_sample_is_found_with_the_task_and_both_counts(tmp_path: Path) -> None:
    def miscount(records: list[dict[str, Any]]) -> None:
        last = reports(records)[STEPS]
        last["num_samples"][1] += 1

    path = write(tmp_path / "ledger.jsonl")
    served = audit(path).num_samples[1]
    with pytest.raises(
        ReplayMismatchError, match=rf"step {STEPS}: .*'b': '{served} by the plans, {served + 1} reported'"
    ):
        audit(changed(path, miscount))


@pytest.mark.parametrize("step", [0, 25, 50, 100])
def test_a_report_left_out_is_found_and_named(step: int, tmp_path: Path) -> None:
    def drop(records: list[dict[str, Any]]) -> None:
        records[:] = [
            record for record in records if not (record["kind"] == "interval" and record["report"]["step"] == step)
        ]

    path = changed(write(tmp_path / "ledger.jsonl", "lag1"), drop)
    with pytest.raises((LedgerError, ReplayMismatchError), match=rf"step {step}|of plan"):
        audit(path)


def test_reports_missing_at_the_end_are_found(tmp_path: Path) -> None:
    def cut(records: list[dict[str, Any]]) -> None:
        records[:] = [
            record for record in records if not (record["kind"] == "interval" and record["report"]["step"] == STEPS)
        ]

    with pytest.raises(LedgerError, match=rf"ended at step {STEPS}, but the ledger lacks .* from step {STEPS} on"):
        audit(changed(write(tmp_path / "ledger.jsonl"), cut))


def test_a_changed_weight_is_found_with_its_plan(tmp_path: Path) -> None:
    def shift(records: list[dict[str, Any]]) -> None:
        decision = [record for record in records if record["kind"] == "decision"][2]
        weights = decision["plan"]["weights"]
        weights[0], weights[1] = weights[0] + 1e-12, weights[1] - 1e-12

    with pytest.raises(ReplayMismatchError, match=r"plan 3: .*weights"):
        audit(changed(write(tmp_path / "ledger.jsonl"), shift))


def test_a_report_that_claims_another_plan_is_found(tmp_path: Path) -> None:
    def claim(records: list[dict[str, Any]]) -> None:
        reports(records)[75]["plan_version"] -= 1

    with pytest.raises(ReplayMismatchError):
        audit(changed(write(tmp_path / "ledger.jsonl"), claim))


def test_no_ledger_is_a_ledger_error(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="no ledger here"):
        audit(tmp_path)
