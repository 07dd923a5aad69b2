"""What a model answers, and how likely it finds the right answer: the two ways to read a causal language model.

`generate` writes answers token by token with a key-value cache; `teacher_forced` reads given answers in one pass. Both
sort their rows by length, put them into batches and give the results back in the order they were asked for, so the
batch size is a matter of speed and memory, never of result (up to the rounding of the matrix products).

Sampling draws one uniform number per prompt and position before the first token is generated, and takes the token at
that quantile of the distribution. An answer then depends on (seed, index of the prompt, position) alone: not on the
batch it shared, on which neighbours stopped early, or on the device's random generator.

Not here: what an answer is worth (`evalsvc.scorers`), which prompts to ask (`evalsvc.evaluator`).

Shapes: B rows of a batch, T tokens, N supervised tokens of a batch, V vocabulary.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional

from train.batch import collate
from train.data.store import EncodedRow
from train.supervised_logits import keeps_marked_positions, last_logits_alone, logits_at

_MAX_LOGITS = 2**26  # of one teacher-forced batch: 256 MiB in float32


@dataclass(frozen=True, slots=True)
class Sampling:
    """Draw from the model's distribution at `temperature` (> 0) with random numbers made from `seed`."""

    temperature: float
    seed: int


class Completion(NamedTuple):
    """A generated answer: its tokens without the stop token, and whether the model stopped by itself."""

    token_ids: list[int]
    stopped: bool


class ProbeResult(NamedTuple):
    """How a model reads one answer: summed loss in nats, tokens summed over, and whether every token is the argmax."""

    loss_sum: float
    num_tokens: int
    exact: bool


@contextmanager
def reading(model: Any) -> Iterator[None]:
    """Put `model` into inference (no gradients, no dropout) and leave it in the mode it was found in.

    Not `torch.inference_mode`: buffers that a sharded model makes under it could not be trained with afterwards.
    """
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_id: int,
    pad_id: int,
    batch_size: int,
    sampling: Sampling | None = None,
) -> list[Completion]:
    """Generate one answer per prompt; greedy unless `sampling` is given.

    Greedy answers equal those of `model.generate(do_sample=False)` token for token. A row leaves its batch as soon as
    it stops, so a batch costs what its unfinished rows cost.

    Args:
        model: A transformers causal LM, on any device.
        prompts: Token ids of each prompt, none empty.
        max_new_tokens: Longest answer; fewer where prompt and answer would exceed `config.max_position_embeddings`.
        stop_id: Token that ends an answer.
        pad_id: Any valid token id; it is masked wherever it is used.
        batch_size: Rows generated together at most.
        sampling: None for greedy decoding.

    Returns:
        One completion per prompt, in the order of `prompts`. A prompt that leaves no room for an answer gets an empty
        one that did not stop.
    """
    uniforms = _uniforms(len(prompts), max_new_tokens, sampling)
    completions: list[Completion | None] = [None] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    with reading(model):
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            decoder = _BatchDecoder(
                model,
                [prompts[index] for index in indices],
                max_new_tokens=max_new_tokens,
                stop_id=stop_id,
                pad_id=pad_id,
                temperature=sampling.temperature if sampling else None,
                uniforms=None if uniforms is None else uniforms[indices],
            )
            for index, completion in zip(indices, decoder.run(), strict=True):
                completions[index] = completion
    return [completion for completion in completions if completion is not None]


def teacher_forced(model: Any, rows: Sequence[EncodedRow], *, pad_id: int, batch_size: int) -> list[ProbeResult]:
    """Read each row's answer in one pass, in float32 from the logits on, with the LM head at answer positions only.

    Rows are padded on the right, where a causal model cannot see the padding. A batch holds at most `batch_size` rows
    and about 256 MiB of logits. A model that cannot leave positions out computes them all, in smaller batches.

    Args:
        model: A transformers causal LM, on any device.
        rows: Tokenised prompts with their answers, stop token included; `0 < answer_start < len(input_ids)`.
        pad_id: Any valid token id.
        batch_size: Rows read together at most.

    Returns:
        One result per row, in the order of `rows`.
    """
    results: dict[int, ProbeResult] = {}
    max_positions = max(1, _MAX_LOGITS // _text_config(model).vocab_size)
    with reading(model):
        head_is_sparse = keeps_marked_positions(model)
        for batch in _batches(rows, batch_size=batch_size, max_positions=max_positions, head_is_sparse=head_is_sparse):
            read = _read_batch(model, [rows[index] for index in batch], pad_id, head_is_sparse=head_is_sparse)
            results.update(zip(batch, read, strict=True))
    return [results[index] for index in range(len(rows))]


def _batches(
    rows: Sequence[EncodedRow], *, batch_size: int, max_positions: int, head_is_sparse: bool
) -> Iterator[list[int]]:
    """Indices of rows, longest first, cut where either bound would be passed; a row over the bound goes alone."""
    batch: list[int] = []
    for index in sorted(range(len(rows)), key=lambda index: -len(rows[index].input_ids)):
        num_positions = _num_positions([rows[place] for place in (*batch, index)], head_is_sparse=head_is_sparse)
        if batch and (len(batch) == batch_size or num_positions > max_positions):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def _num_positions(rows: Sequence[EncodedRow], *, head_is_sparse: bool) -> int:
    """Positions of a batch whose logits are computed; the longest row comes first."""
    if head_is_sparse:
        return sum(len(row.input_ids) - row.answer_start for row in rows)
    return len(rows) * len(rows[0].input_ids)


def _read_batch(model: Any, rows: Sequence[EncodedRow], pad_id: int, *, head_is_sparse: bool) -> list[ProbeResult]:
    batch = collate(rows, pad_id=pad_id, device=model.device)
    arguments = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "use_cache": False}
    logits = logits_at(model, arguments, batch.predicts_answer, head_is_sparse=head_is_sparse).float()  # [N, V]
    losses = functional.cross_entropy(logits, batch.labels, reduction="none").tolist()
    hits = (logits.argmax(dim=-1) == batch.labels).tolist()
    results = []
    start = 0
    for row in rows:
        end = start + len(row.input_ids) - row.answer_start
        results.append(ProbeResult(math.fsum(losses[start:end]), end - start, all(hits[start:end])))
        start = end
    return results


class _BatchDecoder:
    """One batch on its way: rows are padded on the left, and leave the tensors and the cache when they finish."""

    def __init__(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int,
        stop_id: int,
        pad_id: int,
        temperature: float | None,
        uniforms: torch.Tensor | None,
    ) -> None:
        self._model = model
        self._prompts = prompts
        self._stop_id = stop_id
        self._pad_id = pad_id
        self._temperature = temperature
        self._uniforms = None if uniforms is None else uniforms.to(model.device)
        room = getattr(_text_config(model), "max_position_embeddings", None) or math.inf
        self._budgets = [min(max_new_tokens, room - len(prompt)) for prompt in prompts]
        self._tokens: list[list[int]] = [[] for _ in prompts]
        self._stopped = [False] * len(prompts)

    def run(self) -> list[Completion]:
        """Decode until every row has stopped or used up its budget."""
        alive = [row for row, budget in enumerate(self._budgets) if budget > 0]
        if alive:
            self._decode(alive)
        return [Completion(tokens, stopped) for tokens, stopped in zip(self._tokens, self._stopped, strict=True)]

    def _decode(self, alive: list[int]) -> None:
        """Decode the rows `alive`; `alive[b]` is the row that slot b of the tensors holds."""
        ids, mask = self._left_padded([self._prompts[row] for row in alive])
        position_ids = (mask.cumsum(dim=1) - 1).clamp(min=0)
        cache, last_alone = None, last_logits_alone(self._model)
        while True:
            output = self._model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=position_ids,
                past_key_values=cache,
                use_cache=True,
                **last_alone,
            )
            cache = output.past_key_values
            next_ids = self._choose(output.logits[:, -1], alive)
            kept = self._record(alive, next_ids.tolist())
            if not kept:
                return
            ids, position_ids = next_ids[:, None], position_ids[:, -1:] + 1
            if len(kept) < len(alive):
                kept_slots = torch.tensor(kept, device=mask.device)
                cache.reorder_cache(kept_slots)
                ids, mask, position_ids = ids[kept_slots], mask[kept_slots], position_ids[kept_slots]
                alive = [alive[slot] for slot in kept]
            mask = functional.pad(mask, (0, 1), value=1)

    def _record(self, alive: Sequence[int], next_ids: Sequence[int]) -> list[int]:
        """Append each row's token; give the slots that go on."""
        kept = []
        for slot, (row, token_id) in enumerate(zip(alive, next_ids, strict=True)):
            if token_id == self._stop_id:
                self._stopped[row] = True
                continue
            self._tokens[row].append(token_id)
            if len(self._tokens[row]) < self._budgets[row]:
                kept.append(slot)
        return kept

    def _choose(self, logits: torch.Tensor, alive: Sequence[int]) -> torch.Tensor:
        """The next token of each slot; `logits` is [B, V]."""
        if self._temperature is None or self._uniforms is None:
            return logits.argmax(dim=-1)
        uniform = self._uniforms[alive, len(self._tokens[alive[0]])]
        cdf = (logits.float() / self._temperature).softmax(dim=-1).cumsum(dim=-1)
        quantile = (uniform * cdf[:, -1])[:, None]
        chosen = torch.searchsorted(cdf, quantile, right=True)[:, 0]
        return chosen.clamp(max=logits.shape[-1] - 1)  # beyond the end only where the logits are not finite

    def _left_padded(self, prompts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids and attention mask, both [B, T]."""
        width = max(len(prompt) for prompt in prompts)
        ids = np.full((len(prompts), width), self._pad_id, dtype=np.int64)
        mask = np.zeros((len(prompts), width), dtype=np.int64)
        for index, prompt in enumerate(prompts):
            ids[index, width - len(prompt) :] = prompt
            mask[index, width - len(prompt) :] = 1
        device = self._model.device
        return torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)


def _uniforms(num_prompts: int, max_new_tokens: int, sampling: Sampling | None) -> torch.Tensor | None:
    """One number in [0, 1) per prompt and position: [prompts, max_new_tokens], on the CPU whatever the device."""
    if sampling is None:
        return None
    generator = torch.Generator().manual_seed(sampling.seed)
    return torch.rand((num_prompts, max_new_tokens), generator=generator)


def _text_config(model: Any) -> Any:
    return model.config.get_text_config(decoder=True)
