import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel, LlamaForCausalLM

from tests.unit.train.odd_models import AllLogitsLlama, FullLogitsLlama, LastLogitsLlama
from train.data.store import EncodedRow
from train.generation import Completion, Sampling, generate, teacher_forced

STOP, PAD = 1, 0


def random_prompts(count: int, longest: int = 40) -> list[list[int]]:
    source = random.Random(count)
    return [[source.randrange(2, 44) for _ in range(source.randrange(1, longest))] for _ in range(count)]


def random_rows(count: int) -> list[EncodedRow]:
    source = random.Random(count)
    rows = [prompt + [7] * source.randrange(1, 9) + [STOP] for prompt in random_prompts(count)]
    return [encoded(row, source.randrange(1, len(row))) for row in rows]


def encoded(tokens: list[int], answer_start: int) -> EncodedRow:
    return EncodedRow(np.array(tokens, dtype=np.int32), np.array([[answer_start, len(tokens)]], dtype=np.int32))


def answers(model, prompts, *, batch_size=16, max_new_tokens=24, sampling=None) -> list[Completion]:
    return generate(
        model,
        prompts,
        max_new_tokens=max_new_tokens,
        stop_id=STOP,
        pad_id=PAD,
        batch_size=batch_size,
        sampling=sampling,
    )


def reference_answer(model, prompt: list[int], max_new_tokens: int = 24) -> Completion:
    """One prompt at a time through `model.generate`: no padding, no dropping."""
    output = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        max_new_tokens=max_new_tokens,
        eos_token_id=STOP,
        pad_token_id=PAD,
    )[0, len(prompt) :].tolist()
    stopped = output[-1] == STOP
    return Completion(output[:-1] if stopped else output, stopped)


def test_greedy_answers_equal_those_of_transformers_token_for_token(random_model):
    prompts = random_prompts(48)
    expected = [reference_answer(random_model, prompt) for prompt in prompts]
    for batch_size in (1, 7, 64):
        assert answers(random_model, prompts, batch_size=batch_size) == expected
    assert 4 < sum(completion.stopped for completion in expected) < 48, "both endings must occur for this to mean much"


def test_greedy_answers_equal_those_of_transformers_for_learned_positions():
    torch.manual_seed(1)
    config = GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=44, n_positions=80, initializer_range=0.4)
    model = GPT2LMHeadModel(config).eval()
    prompts = random_prompts(20)
    assert answers(model, prompts, batch_size=8) == [reference_answer(model, prompt) for prompt in prompts]


def test_an_answer_ends_where_the_models_positions_end():
    torch.manual_seed(1)
    model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=44, n_positions=16)).eval()
    with torch.no_grad():
        model.lm_head.weight[STOP] = 0
    prompts = [[5] * 10, [5] * 16, [5] * 4]
    lengths = [(len(tokens), stopped) for tokens, stopped in answers(model, prompts)]
    assert lengths == [(6, False), (0, False), (12, False)]


def test_an_answer_is_cut_at_max_new_tokens_and_says_so(random_model):
    full = answers(random_model, random_prompts(48))
    cut = answers(random_model, random_prompts(48), max_new_tokens=3)
    for whole, short in zip(full, cut, strict=True):
        assert short.token_ids == whole.token_ids[:3]
        assert short.stopped == (whole.stopped and len(whole.token_ids) < 3)


def test_no_prompts_give_no_answers(random_model):
    assert answers(random_model, []) == []


def test_sampled_answers_depend_on_the_seed_alone_and_not_on_their_batch(random_model):
    prompts = random_prompts(6) * 4
    first = answers(random_model, prompts, sampling=Sampling(1.0, seed=3), batch_size=64)
    assert answers(random_model, prompts, sampling=Sampling(1.0, seed=3), batch_size=5) == first
    assert answers(random_model, prompts, sampling=Sampling(1.0, seed=4), batch_size=64) != first


def test_generation_leaves_the_global_random_state_alone(random_model):
    before = torch.get_rng_state()
    answers(random_model, random_prompts(4), sampling=Sampling(1.0, seed=3))
    assert torch.equal(torch.get_rng_state(), before)


def test_sampled_tokens_follow_the_models_distribution_at_the_temperature(random_model):
    prompt, count, temperature = [5, 9, 11], 4000, 2.0
    completions = answers(
        random_model, [prompt] * count, max_new_tokens=1, sampling=Sampling(temperature, seed=0), batch_size=1000
    )
    drawn = [tokens[0] if tokens else STOP for tokens, _ in completions]
    with torch.no_grad():
        expected = (random_model(torch.tensor([prompt])).logits[0, -1] / temperature).softmax(-1).numpy()
    observed = np.bincount(drawn, minlength=44) / count
    standard_error = np.sqrt(expected * (1 - expected) / count)
    assert np.all(np.abs(observed - expected) < 5 * standard_error + 1e-4)


def test_sampling_at_a_low_temperature_is_greedy(random_model):
    prompts = random_prompts(12)
    assert answers(random_model, prompts, sampling=Sampling(1e-4, seed=0)) == answers(random_model, prompts)


def test_a_diverged_model_is_read_without_an_error(random_model):
    with torch.no_grad():
        random_model.lm_head.weight.fill_(float("nan"))
    completions = answers(random_model, random_prompts(3), sampling=Sampling(0.7, seed=0), max_new_tokens=4)
    assert all(0 <= token < 44 for tokens, _ in completions for token in tokens)
    assert all(
        np.isnan(result.loss_sum) for result in teacher_forced(random_model, random_rows(3), pad_id=PAD, batch_size=2)
    )


def test_a_model_in_training_mode_is_read_without_dropout_and_left_in_training_mode():
    torch.manual_seed(1)
    model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=44, n_positions=80)).train()
    rows = random_rows(4)
    first = teacher_forced(model, rows, pad_id=PAD, batch_size=4)
    assert teacher_forced(model, rows, pad_id=PAD, batch_size=4) == first
    assert model.training


@settings(max_examples=15, deadline=None)
@given(count=st.integers(1, 12), batch_size=st.integers(1, 13))
def test_teacher_forced_results_equal_those_of_one_row_at_a_time(count, batch_size):
    torch.manual_seed(2)
    model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, vocab_size=44, n_positions=80)).eval()
    rows = random_rows(count)
    for row, result in zip(rows, teacher_forced(model, rows, pad_id=PAD, batch_size=batch_size), strict=True):
        ids = torch.from_numpy(row.input_ids).long()
        with torch.no_grad():
            logits = model(ids[None]).logits[0, row.answer_start - 1 : -1]
        targets = ids[row.answer_start :]
        assert result.num_tokens == len(targets)
        assert result.loss_sum == pytest.approx(
            functional.cross_entropy(logits, targets, reduction="sum").item(), rel=1e-5
        )
        assert result.exact == bool((logits.argmax(-1) == targets).all())


def test_teacher_forced_exactness_agrees_with_greedy_decoding(random_model):
    answered = zip(random_prompts(64), answers(random_model, random_prompts(64)), strict=True)
    prompts, completions = zip(*[pair for pair in answered if pair[1].stopped], strict=True)
    right = [prompt + tokens + [STOP] for prompt, (tokens, _) in zip(prompts, completions, strict=True)]
    wrong = [[*row[:-2], (row[-2] + 1) % 44, STOP] for row in right]
    rows = [
        encoded(row, len(prompt))
        for group in (right, wrong)
        for row, prompt in zip(group, prompts, strict=True)
        if len(row) > len(prompt) + 1
    ]
    exact = [result.exact for result in teacher_forced(random_model, rows, pad_id=PAD, batch_size=16)]
    assert exact == [True] * (len(rows) // 2) + [False] * (len(rows) // 2)
    assert rows


@pytest.mark.parametrize("kind", [FullLogitsLlama, AllLogitsLlama, LastLogitsLlama], ids=lambda kind: kind.__name__)
def test_a_model_that_leaves_no_positions_out_is_read_and_answers_as_any_other(random_model, kind):
    odd = kind(random_model.config).eval()
    odd.load_state_dict(random_model.state_dict())
    rows, prompts = random_rows(20), random_prompts(20)
    expected = teacher_forced(random_model, rows, pad_id=PAD, batch_size=8)
    found = teacher_forced(odd, rows, pad_id=PAD, batch_size=8)
    assert [(one.num_tokens, one.exact) for one in found] == [(one.num_tokens, one.exact) for one in expected]
    assert [one.loss_sum for one in found] == pytest.approx([one.loss_sum for one in expected], rel=1e-5)
    assert answers(odd, prompts) == answers(random_model, prompts)


@pytest.mark.parametrize("kind", [LlamaForCausalLM, FullLogitsLlama])
def test_a_batch_holds_no_more_logits_than_are_allowed_wherever_they_are_computed(random_model, kind, monkeypatch):
    model = kind(random_model.config).eval()
    computed = []
    model.lm_head.register_forward_hook(lambda _module, _inputs, logits: computed.append(logits.numel()))
    monkeypatch.setattr("train.generation._MAX_LOGITS", 64 * 44)
    teacher_forced(model, random_rows(30), pad_id=PAD, batch_size=16)
    assert max(computed) <= 64 * 44
    assert len(computed) > 30 // 16 + 1
