import dataclasses
import itertools
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from evalsvc.config import EvaluationConfig
from evalsvc.evaluator import Evaluator, FinalScore
from evalsvc.probes import Probe, probe_order, read_probes
from scheduler.allocation import Allocation
from scheduler.errors import ConfigError, DataError
from scheduler.output_spec import LengthRule, PatternRule
from scheduler.task import ExactChecker, NumericChecker, OverlapChecker, RulesChecker, TaskSpec
from train.config import DataConfig
from train.data.prepare import prepare
from train.data.store import EncodedRow, TokenStore

STOP, PAD = 1, 0
ROLES = ("user", "assistant")
CONFIG = EvaluationConfig(sampled_probes=4, samples_per_probe=3, max_new_tokens=12)
TASKS = (
    TaskSpec(name="sum", checker=ExactChecker(), output_rules=(PatternRule(regex=r"\d+"),)),
    TaskSpec(name="double", checker=NumericChecker()),
    TaskSpec(name="spell", checker=OverlapChecker()),
    TaskSpec(name="polite", checker=RulesChecker(), output_rules=(LengthRule(max_chars=8), PatternRule(regex="ok .*"))),
)
PAIRS = (
    [(f"{a}+{b}=", str(a + b)) for a, b in ((1, 2), (3, 5), (10, 4), (7, 7), (20, 3), (9, 8))],
    [(f"double {a}?", f"it is {2 * a}") for a in (1, 4, 15, 22, 31)],
    [(f"spell {word}.", " ".join(word)) for word in ("cat", "dog", "bird", "fish", "mole")],
    [(f"thank {name}", f"ok {name}") for name in ("ann", "bob", "mei", "tom")],
)


@pytest.fixture
def probes(tokenizer):
    return [[make_probe(tokenizer, *pair) for pair in pairs] for pairs in PAIRS]


def make_probe(tokenizer, prompt: str, answer: str) -> Probe:
    prompt_ids, answer_ids = tokenizer.encode(prompt), tokenizer.encode(answer)
    ids = np.array([*prompt_ids, *answer_ids, STOP], dtype=np.int32)
    return Probe(EncodedRow(ids, np.array([[len(prompt_ids), len(ids)]], dtype=np.int32)), answer, prompt)


def make_evaluator(tokenizer, probes, *, tasks=TASKS, config=CONFIG, seed=5) -> Evaluator:
    return Evaluator(
        tokenizer=tokenizer, stop_id=STOP, pad_id=PAD, tasks=tasks, probes=probes, config=config, seed=seed
    )


def judge(evaluator, model, *, step=10, attempt=0):
    return list(evaluator.evaluate(model, step=step, attempt=attempt, plan_version=2))


def memorise(model, probes, *, num_steps: int = 150) -> None:
    rows = [probe.row for task_probes in probes for probe in task_probes]
    ids = torch.full((len(rows), max(len(row.input_ids) for row in rows)), PAD)
    labels = torch.full_like(ids, -100)
    for index, row in enumerate(rows):
        tokens = torch.from_numpy(row.input_ids).long()
        ids[index, : len(tokens)] = tokens
        labels[index, row.answer_start : len(tokens)] = tokens[row.answer_start :]
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(num_steps):
        optimiser.zero_grad()
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimiser.step()
        if loss.item() < 1e-3:
            return


def test_a_model_that_knows_every_answer_scores_one_and_is_never_rejected(random_model, tokenizer, probes):
    memorise(random_model, probes)
    evaluator = make_evaluator(tokenizer, probes)
    signals = judge(evaluator, random_model)
    assert [signal.task for signal in signals] == ["sum", "double", "spell", "polite"]
    assert [signal.num_probes for signal in signals] == [6, 5, 5, 4]
    for signal in signals:
        assert signal.fault() is None
        assert signal.score == 1
        assert signal.loss < 0.01
        assert (signal.sampled_score, signal.score_variance) == (1, 0)
        assert (signal.num_rejected, signal.num_reviewed, signal.format_compliance) == (0, 12, 1)
    final = evaluator.final_test(random_model, [probes[0], probes[1], [], probes[3]])
    assert final[2] == FinalScore("spell", 0, None, None)
    assert [(result.score, result.num_rows) for result in final] == [(1, 6), (1, 5), (None, 0), (1, 4)]
    assert final[0].loss == signals[0].loss


def test_a_model_that_knows_nothing_scores_low_and_is_rejected(random_model, tokenizer, probes):
    for signal in judge(make_evaluator(tokenizer, probes), random_model):
        assert signal.fault() is None
        assert signal.loss > 1
        assert signal.num_rejected > 0
        assert signal.task == "polite" or signal.score < 0.5


def test_judging_the_same_weights_again_gives_the_same_signal_bit_for_bit(random_model, tokenizer, probes):
    first = judge(make_evaluator(tokenizer, probes), random_model)
    torch.manual_seed(999)
    assert judge(make_evaluator(tokenizer, probes), random_model) == first
    alone = make_evaluator(tokenizer, probes).evaluate_task(random_model, 2, step=10, attempt=0, plan_version=2)
    assert alone == first[2]
    retried = judge(make_evaluator(tokenizer, probes), random_model, attempt=1)
    assert [dataclasses.replace(signal, attempt=0) for signal in retried] == first


def test_samples_differ_from_step_to_step_and_from_seed_to_seed(random_model, tokenizer, probes):
    memorise(random_model, probes, num_steps=30)
    config = CONFIG.model_copy(update={"temperature": 1.5})
    results = [
        [
            signal.sampled_score
            for signal in judge(make_evaluator(tokenizer, probes, config=config, seed=seed), random_model, step=step)
        ]
        for seed, step in ((5, 10), (5, 11), (6, 10))
    ]
    assert results[0] != results[1]
    assert results[0] != results[2]


def test_the_batch_size_changes_no_signal_beyond_rounding(random_model, tokenizer, probes):
    small = judge(make_evaluator(tokenizer, probes, config=CONFIG.model_copy(update={"batch_size": 2})), random_model)
    for one, other in zip(small, judge(make_evaluator(tokenizer, probes), random_model), strict=True):
        assert one.loss == pytest.approx(other.loss, rel=1e-5)
        assert dataclasses.replace(one, loss=0) == dataclasses.replace(other, loss=0)


def test_the_variance_is_the_mean_over_probes_of_the_variance_over_samples(
    random_model, tokenizer, probes, monkeypatch
):
    order = probe_order(len(probes[0]), seed=5, task=TASKS[0].name)
    first, second = (probes[0][place].reference for place in order[:2])

    def scripted(_model, prompts, *, sampling, **_settings):
        texts = [first, first, "no number"] + [second] * 3 if sampling else ["3"] * len(prompts)
        return [SimpleNamespace(token_ids=tokenizer.encode(text), stopped=True) for text in texts]

    monkeypatch.setattr("evalsvc.evaluator.generate", scripted)
    config = EvaluationConfig(sampled_probes=2, samples_per_probe=3)
    signal = judge(make_evaluator(tokenizer, probes[:1], tasks=TASKS[:1], config=config), random_model)[0]
    assert signal.sampled_score == pytest.approx((2 / 3 + 1) / 2)
    assert signal.score_variance == pytest.approx((2 / 9 + 0) / 2)


def test_probes_are_sampled_across_their_levels_and_not_in_the_order_they_lie(random_model, tokenizer, monkeypatch):
    """They lie sorted by difficulty: the first few of them would all be the easiest."""
    asked: list[list[int]] = []

    def noted(_model, prompts, *, sampling, **_settings):
        if sampling:
            asked.extend(prompts)
        return [SimpleNamespace(token_ids=[], stopped=True) for _ in prompts]

    monkeypatch.setattr("evalsvc.evaluator.generate", noted)
    rows = [
        EncodedRow(np.array([29, place % 40 + 2, 31, 1], dtype=np.int32), np.array([[2, 4]])) for place in range(32)
    ]
    many = [Probe(row, "3", level=place // 8) for place, row in enumerate(rows)]
    judge(make_evaluator(tokenizer, [many], tasks=TASKS[:1], config=EvaluationConfig(sampled_probes=8)), random_model)
    prompts = [row.input_ids[:2].tolist() for row in rows]
    assert len({prompts.index(prompt) // 8 for prompt in asked}) >= 3


def test_fewer_probes_than_sampled_probes_are_all_sampled(random_model, tokenizer, probes):
    config = EvaluationConfig(sampled_probes=100, samples_per_probe=2, max_new_tokens=4)
    signals = judge(make_evaluator(tokenizer, probes, config=config), random_model)
    assert [signal.num_reviewed for signal in signals] == [12, 10, 10, 8]


def test_peoples_verdicts_reach_the_signal_of_their_task(random_model, tokenizer, probes, tmp_path):
    path = tmp_path / "verdicts.jsonl"
    evaluator = make_evaluator(tokenizer, probes, config=CONFIG.model_copy(update={"human_verdicts": path}))
    path.write_text('{"task": "spell", "verdict": "rejected"}\n{"task": "spell", "verdict": "accepted"}\nwhat\n')
    signals = judge(evaluator, random_model)
    counts = [(signal.num_human_rejected, signal.num_human_reviewed) for signal in signals]
    assert counts == [(0, 0), (0, 0), (1, 2), (0, 0)]


def test_verdicts_that_are_not_counted_are_told_once_with_their_line_and_reason(
    random_model, tokenizer, probes, tmp_path
):
    path = tmp_path / "verdicts.jsonl"
    evaluator = make_evaluator(tokenizer, probes, config=CONFIG.model_copy(update={"human_verdicts": path}))
    assert evaluator.newly_refused_verdicts() == make_evaluator(tokenizer, probes).newly_refused_verdicts() == ""
    path.write_text('{"task": "spell", "verdict": "accepted"}\n{"task": "spelling", "verdict": "rejected"}\nwhat\n')
    judge(evaluator, random_model)
    told = evaluator.newly_refused_verdicts()
    assert told.startswith("evaluation.human_verdicts, line 2: task 'spelling' is not a task of this run")
    assert told.endswith("(1 more lines are bad)")
    assert evaluator.newly_refused_verdicts() == ""
    path.write_text(path.read_text() + '{"task": "' + 5000 * "x" + '", "verdict": "accepted"}\n')
    judge(evaluator, random_model, step=20)
    told = evaluator.newly_refused_verdicts()
    assert told.startswith("evaluation.human_verdicts, line 4: task 'xxx")
    assert len(told) < 400
    path.write_text("")
    judge(evaluator, random_model, step=30)
    assert evaluator.newly_refused_verdicts().startswith("evaluation.human_verdicts: the file became shorter")


def test_tasks_that_cannot_be_scored_are_refused_before_the_run(tokenizer, probes):
    with pytest.raises(DataError, match="'sum' has no probes"):
        make_evaluator(tokenizer, [[]], tasks=TASKS[:1])
    with pytest.raises(ConfigError, match="'free' is scored by its output rules and has none"):
        make_evaluator(tokenizer, probes[:1], tasks=[TaskSpec(name="free", checker=RulesChecker())])
    with pytest.raises(DataError, match="has none: 'c a t'"):
        make_evaluator(tokenizer, probes[2:3], tasks=[TaskSpec(name="count", checker=NumericChecker())])


def test_answers_longer_than_the_generation_limit_are_noted(tokenizer, probes):
    assert make_evaluator(tokenizer, probes).notes == ()
    config = CONFIG.model_copy(update={"max_new_tokens": 8})
    notes = make_evaluator(tokenizer, probes, config=config).notes
    assert len(notes) == 1
    assert "'double': the right answers of 3 of 5 probes are longer than evaluation.max_new_tokens = 8" in notes[0]


@dataclasses.dataclass(frozen=True)
class Given:
    """A tokenizer that is there already."""

    tokenizer: Any
    key: str = "characters"

    def make(self, _texts: Iterator[str]) -> Any:
        return self.tokenizer


def test_held_out_rows_are_read_from_the_store_task_by_task_with_their_last_answer_alone(tmp_path, tokenizer):
    for task in ("sum", "double"):
        turns = [[(f"{task} {n}", f"say {n}"), (f"again {n}", f"is {2 * n}")] for n in range(20)]
        rows = [
            {
                "messages": [
                    {"role": role, "content": text} for pair in own for role, text in zip(ROLES, pair, strict=True)
                ]
            }
            for own in turns
        ]
        (tmp_path / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sources = [str(tmp_path / "sum.jsonl"), str(tmp_path / "double.jsonl")]
    config = DataConfig.model_validate({"sources": sources, "loss_on": "every_answer", "test_per_task": 3})
    prepared = prepare(
        config, specs={}, tokenizer_source=Given(tokenizer), chat_template="none", out_dir=tmp_path, seed=0
    )
    store = TokenStore.open(prepared.store_path)
    for split in ("probe", "test"):
        read = read_probes(store, num_tasks=2, split=split)
        assert [[probe.reference for probe in own] for own in read] == [
            [example.answer for example in store.examples(task, split)] for task in range(2)
        ]
        for probe in (probe for own in read for probe in own):
            answer = tokenizer.decode(probe.row.input_ids[probe.row.answer_start : -1])
            assert answer == probe.reference == f"is {2 * int(probe.prompt.removeprefix('again '))}"
            assert probe.row.spans.tolist() == [[probe.row.answer_start, len(probe.row.input_ids)]]


def test_allotted_probes_are_the_first_of_one_order_and_a_task_without_any_has_no_signal(
    random_model, tokenizer, probes
):
    evaluator = make_evaluator(tokenizer, probes)
    count = len(probes[0])
    nested = [evaluator._allotted(0, Allocation((size,) * len(TASKS))) for size in range(1, count + 1)]
    for fewer, more in itertools.pairwise(nested):
        assert list(more[: len(fewer)]) == list(fewer)
    assert sorted(map(id, nested[-1])) == sorted(map(id, probes[0]))
    assert make_evaluator(tokenizer, probes)._allotted(0, Allocation((2,) * len(TASKS))) == nested[1]

    some = Allocation((2, *(0,) * (len(TASKS) - 1)))
    signals = list(evaluator.evaluate(random_model, some, step=10, attempt=0, plan_version=0))
    assert [(signal.task, signal.num_probes) for signal in signals] == [(TASKS[0].name, 2)]


def test_the_loss_is_of_the_probes_that_all_evaluations_have_in_common(random_model, tokenizer, probes):
    evaluator = make_evaluator(tokenizer, probes)
    losses = [
        evaluator.evaluate_task(random_model, 0, Allocation((size,), 2), step=10, attempt=0, plan_version=0).loss
        for size in (2, len(probes[0]))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_probes_are_counted_by_difficulty_level_where_their_task_has_several(random_model, tokenizer, probes):
    spelling = [probe._replace(level=level) for probe, level in zip(probes[2], (2, 0, 0, 2, 0), strict=True)]
    plain, levelled = (
        judge(make_evaluator(tokenizer, [own], tasks=TASKS[2:3]), random_model)[0] for own in (probes[2], spelling)
    )
    assert (plain.level_probes, plain.level_successes) == ((), ())
    assert levelled.level_probes == (3, 0, 2)
    for level in (0, 2):
        alone = [probe for probe in spelling if probe.level == level]
        own = judge(make_evaluator(tokenizer, [alone], tasks=TASKS[2:3]), random_model)[0]
        assert levelled.level_successes[level] == pytest.approx(own.score * len(alone))
    assert levelled.fault() is None
    assert dataclasses.replace(levelled, level_probes=(), level_successes=()) == plain
