"""The ledger alone is the run: any history can be read back, reopened and replayed, and no forged one can."""

import dataclasses
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.errors import LedgerError, ReplayMismatchError
from scheduler.keeper import HeatKeeper, replay
from scheduler.ledger import LedgerWriter, read_ledger
from scheduler.records import SCHEMA_VERSION, DecisionRecord, Record, RunRecord, SignalRecord, from_json, to_json
from scheduler.setup import EngineSetup, HeatPolicy, StaticPolicy
from tests.unit.scheduler.made import INTERVAL, report, setup, signal

NAMES = ("a", "b", "c")
TOTAL_STEPS = 250
finite = st.floats(allow_nan=False, allow_infinity=False)
plain = st.recursive(st.none() | st.booleans() | st.integers() | finite | st.text(), st.lists, max_leaves=5)


def of_type(hint: Any) -> st.SearchStrategy[Any]:
    if dataclasses.is_dataclass(hint):
        return st.builds(hint, **{name: of_type(own) for name, own in get_type_hints(hint).items()})
    arguments = get_args(hint)
    if hint in (int, float, str):
        return {int: st.integers(), float: finite, str: st.text()}[hint]
    if type(None) in arguments:
        return st.none() | of_type(arguments[0])
    if getattr(hint, "__origin__", None) is tuple:
        return st.lists(of_type(arguments[0]), max_size=4).map(tuple)
    return st.dictionaries(st.text(), plain, max_size=4)


records = st.one_of([of_type(kind) for kind in get_args(Record)])


@contextmanager
def ledger_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "ledger" / "ledger.jsonl"


@settings(max_examples=300, deadline=None)
@given(records)
def test_a_record_goes_into_one_line_of_json_and_back_exactly(record: Record) -> None:
    line = to_json(record)
    assert "\n" not in line
    again = from_json(line)
    assert again == record
    assert type(again) is type(record)
    assert to_json(again) == line


@settings(max_examples=100, deadline=None)
@given(records, st.data())
def test_a_damaged_line_is_refused_or_says_something_else(record: Record, data: st.DataObject) -> None:
    line = to_json(record)
    where = data.draw(st.integers(0, len(line) - 1))
    forged = line[:where] + data.draw(st.characters(codec="utf-8")) + line[where + 1 :]
    with suppress(LedgerError):
        assert to_json(from_json(forged))


def of_this_schema(record: Record) -> Record:
    return dataclasses.replace(record, schema_version=SCHEMA_VERSION) if isinstance(record, RunRecord) else record


def test_a_ledger_of_another_version_is_named_as_such_and_not_taken_for_a_damaged_one(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_text('{"kind":"run","schema_version":1,"setup":{},"plan":{"weights":[1.0]}}\n')
    with pytest.raises(LedgerError, match=rf"of schema 1, this version of taskheat reads schema {SCHEMA_VERSION}"):
        list(read_ledger(path))


@settings(max_examples=40, deadline=None)
@given(st.lists(records.map(of_this_schema), min_size=1, max_size=6), st.data())
def test_a_torn_last_line_is_cut_and_every_whole_line_is_kept(written: list[Record], data: st.DataObject) -> None:
    with ledger_path() as path:
        writer = LedgerWriter(path)
        for record in written:
            writer.append(record)
        writer.close()
        content = path.read_bytes()
        cut = data.draw(st.integers(0, len(content)))
        path.write_bytes(content[:cut])
        whole = written[: content[:cut].count(b"\n")]
        assert list(read_ledger(path)) == whole
        reopened = LedgerWriter(path)
        reopened.append(written[0])
        reopened.close()
        assert list(read_ledger(path)) == [*whole, written[0]]
        assert reopened.torn_bytes == cut - (content[:cut].rfind(b"\n") + 1)


calls = st.one_of(
    st.tuples(
        st.just("observe"), st.sampled_from([*NAMES, "ghost"]), st.sampled_from([0, 0, 0, -1, 1]), st.floats(-0.1, 1.1)
    ),
    st.tuples(st.just("evaluate"), st.floats(0, 1), st.floats(0, 1), st.sampled_from([0, 0, -1])),
    st.tuples(st.just("done"), st.sampled_from([0, 0, -1, 1])),
    st.tuples(st.just("boundary")),
    st.tuples(st.just("boundary")),
    st.tuples(st.just("checkpoint")),
    st.tuples(st.just("restart"), st.integers(0, 5), st.booleans()),
    st.tuples(st.just("skip"), st.sampled_from([0, 0, -1])),
    st.tuples(st.just("reopen")),
    st.tuples(st.just("end")),
)


class Driver:
    """Calls a keeper as workers and evaluators do, in any order, and some calls twice."""

    def __init__(self, path: Path, made: EngineSetup) -> None:
        self.path, self.made = path, made
        self.keeper = HeatKeeper.open(path, made)
        self.attempt = self.keeper.begin_attempt("token 0", 0)
        self.step, self.served, self.num_restarts = 0, [0] * len(NAMES), 0
        self.taken: dict[int, tuple[dict[str, Any], list[int]]] = {}

    def call(self, name: str, *arguments: Any) -> None:
        getattr(self, name)(*arguments)

    def observe(self, task: str, steps: int, score: float) -> None:
        self.keeper.observe(
            signal(task, step=self.step + steps * INTERVAL, attempt=self.attempt, score=score, sampled_score=0.5)
        )

    def evaluate(self, score: float, loss: float, attempts: int) -> None:
        for index, name in enumerate(NAMES):
            own = signal(name, step=self.step, attempt=self.attempt + attempts, score=score ** (index + 1), loss=loss)
            self.keeper.observe(own)
            self.keeper.observe(own)

    def done(self, steps: int) -> None:
        for _ in range(2):
            self.keeper.evaluation_done(self.attempt, self.step + steps * INTERVAL)

    def boundary(self) -> None:
        if self.step + INTERVAL > TOTAL_STEPS:
            return
        self.step += INTERVAL
        plan = self.keeper.ready_plan(self.step) or self.keeper.keep_late_plan(self.step)
        assert plan.effective_from_step <= self.step
        self.served = [count + 100 for count in self.served]
        told = report(self.served, step=self.step, attempt=self.attempt, plan_version=plan.version)
        self.keeper.observe_interval(told)
        self.keeper.observe_interval(told)

    def checkpoint(self) -> None:
        state = self.keeper.checkpoint(self.step)
        assert self.keeper.checkpoint(self.step) == state
        self.taken.setdefault(self.step, (json.loads(json.dumps(state)), list(self.served)))

    def restart(self, which: int, from_the_start: bool) -> None:
        if self.taken and not from_the_start:
            step = sorted(self.taken)[which % len(self.taken)]
            state, self.served = self.taken[step][0], list(self.taken[step][1])
        elif 0 in self.taken:
            return
        else:
            step, state, self.served = 0, None, [0] * len(NAMES)
        self.taken = {at: kept for at, kept in self.taken.items() if at <= step}
        self.step, self.num_restarts = step, self.num_restarts + 1
        token = f"token {self.num_restarts}"
        self.attempt = self.keeper.begin_attempt(token, step, state)
        assert self.keeper.begin_attempt(token, step, state) == self.attempt

    def skip(self, steps: int) -> None:
        self.keeper.skip(max(0, self.step + steps * INTERVAL))

    def end(self) -> None:
        self.keeper.end(self.step, "stopped")

    def reopen(self) -> None:
        """The actor dies and comes back: as it was, and without a word more in the ledger."""
        before = json.dumps(self.keeper.memory.engine.state_dict())
        again = HeatKeeper.open(self.path, self.made)
        assert json.dumps(again.memory.engine.state_dict()) == before
        assert again.lines == self.keeper.lines == self.path.read_text().splitlines()
        mine, theirs = dict(vars(self.keeper.memory)), dict(vars(again.memory))
        for state in (mine, theirs):
            del state["engine"]
        assert mine == theirs
        self.keeper = again


histories = st.lists(calls, min_size=1, max_size=40)


def make_setup(mode: str, boundary: dict[str, Any] | None) -> EngineSetup:
    return setup(
        NAMES,
        cards={"a": {"tier": "long_tail"}, "b": {"tier": "core"}},
        total_steps=TOTAL_STEPS,
        mode=mode,
        boundary=boundary,
        policies=(StaticPolicy(), HeatPolicy()),
        guards={"max_epochs": 3.0, "overfit_patience": 1},
    )


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(["lag1", "sync", "async"]), st.sampled_from([None, {"type": "step", "step": 60}]), histories)
def test_any_history_of_calls_is_reproduced_by_its_ledger_alone(mode: str, boundary: Any, history: list[Any]) -> None:
    with ledger_path() as path:
        driver = Driver(path, make_setup(mode, boundary))
        for name, *arguments in history:
            driver.call(name, *arguments)
        driver.reopen()
        replayed = replay(read_ledger(path))
        assert replayed.engine.state_dict() == driver.keeper.memory.engine.state_dict()
        assert replayed.plans == driver.keeper.memory.plans


def whole_run(path: Path) -> list[Record]:
    driver = Driver(path, make_setup("lag1", {"type": "step", "step": 60}))
    for score in (0.1, 0.5, 0.4, 0.7, 0.3):
        driver.evaluate(score, 1.0 + score, 0)
        driver.done(0)
        driver.boundary()
        driver.checkpoint()
    return list(read_ledger(path))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_ledger_with_one_weight_of_a_plan_forged_is_not_replayed(data: st.DataObject) -> None:
    with ledger_path() as path:
        told = whole_run(path)
        where = data.draw(st.sampled_from([i for i, record in enumerate(told) if isinstance(record, DecisionRecord)]))
        record = told[where]
        assert isinstance(record, DecisionRecord)
        weights = list(record.plan.weights)
        weights[data.draw(st.integers(0, 2))] += data.draw(st.sampled_from([1e-15, -1e-9, 0.01]))
        forged = dataclasses.replace(record, plan=dataclasses.replace(record.plan, weights=tuple(weights)))
        with pytest.raises(
            ReplayMismatchError, match=r"DecisionRecord of plan \d+: plan\.weights\.\d is .* recomputed"
        ):
            replay([*told[:where], forged, *told[where + 1 :]])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_ledger_with_one_score_forged_is_not_replayed(data: st.DataObject) -> None:
    with ledger_path() as path:
        told = whole_run(path)
        where = data.draw(st.sampled_from([i for i, record in enumerate(told) if isinstance(record, SignalRecord)]))
        record = told[where]
        assert isinstance(record, SignalRecord)
        score = record.signal.score + data.draw(st.sampled_from([1e-6, -1e-6, 0.01]))
        forged = SignalRecord(dataclasses.replace(record.signal, score=score))
        with pytest.raises(ReplayMismatchError):
            replay([*told[:where], forged, *told[where + 1 :]])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_ledger_without_one_of_its_decisions_signals_or_stages_is_not_replayed(data: st.DataObject) -> None:
    with ledger_path() as path:
        told = whole_run(path)
        kinds = ("DecisionRecord", "SignalRecord", "StageRecord")
        where = data.draw(st.sampled_from([i for i, one in enumerate(told) if type(one).__name__ in kinds]))
        with pytest.raises((ReplayMismatchError, LedgerError)):
            replay([*told[:where], *told[where + 1 :]])
