"""Near duplicates: MinHash and LSH bands to find candidates, exact Jaccard similarity to judge them.

A text (last turn and answer, case folded, white space as one blank) is the set of its runs of five characters.
One-permutation MinHash cuts the hashes of the runs into `_NUM_BINS` bins and keeps the least of each; an empty bin
borrows its right neighbour's (Shrivastava and Li 2014, "densification by rotation"). Bins are taken together in bands
of `r`; two rows are candidates when they agree on any whole band, which at similarity s happens with probability about
1 - (1 - s^r)^(_NUM_BINS / r). `band_rows` takes the largest r that finds at least 99.9 % of the pairs at the threshold
by that formula. In each band a row is compared with the first of those it agrees with, by rank, and with its neighbour
by rank, so work stays linear where thousands share a band. What is reported is verified on the texts: precision is 1
up to collisions of a 64-bit hash; recall is measured in the tests.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from train.config import NearDuplicateConfig
from train.data.preparing.execute import Executor
from train.data.preparing.index import Index
from train.data.preparing.relations import NO_PAIRS, NearPairs
from train.data.preparing.spill import Text, read_texts
from train.data.row import Row

_RUN_LENGTH = 5
_NUM_BINS = 128
_MIN_RECALL = 0.999
_CHUNK_RUNS = 1 << 19
_CHUNK_PAIRS = 4096
_EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)


def band_rows(threshold: float) -> int:
    """Bins to a band: the most that still find 99.9 % of the pairs whose similarity is the threshold."""
    return max(r for r in range(1, 17) if r == 1 or 1 - (1 - threshold**r) ** (_NUM_BINS // r) >= _MIN_RECALL)


def comparable(text: Text) -> str:
    """What is compared of a row."""
    return " ".join(f"{text.messages[-1][1]} {text.answer}".casefold().split())


def runs_of(text: str) -> np.ndarray:
    """Distinct hashes of the text's runs of characters, uint64, sorted."""
    return np.unique(_hashes(text))


def _hashes(text: str) -> np.ndarray:
    codes = np.frombuffer(text.encode("utf-32-le", errors="surrogatepass"), dtype=np.uint32).astype(np.uint64)
    count = max(1, len(codes) - _RUN_LENGTH + 1)
    mixed = np.zeros(count, dtype=np.uint64)
    for offset in range(min(_RUN_LENGTH, len(codes))):
        mixed = mixed * np.uint64(0x100000001B3) + codes[offset : offset + count] + np.uint64(1)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))


def band_keys(texts: list[str], *, rows_per_band: int) -> np.ndarray:
    """LSH keys, uint64 [bands, texts]."""
    hashes = [_hashes(text) for text in texts]
    owner = np.repeat(np.arange(len(texts)), [len(item) for item in hashes])
    together = np.concatenate(hashes)
    bins = np.full(len(texts) * _NUM_BINS, _EMPTY)
    np.minimum.at(bins, owner * _NUM_BINS + (together % np.uint64(_NUM_BINS)).astype(np.int64), together)
    signature = _densified(bins.reshape(len(texts), _NUM_BINS))
    num_bands = _NUM_BINS // rows_per_band
    banded = signature[:, : num_bands * rows_per_band].reshape(len(texts), num_bands, rows_per_band)
    keys = np.zeros((len(texts), num_bands), dtype=np.uint64)
    for place in range(rows_per_band):
        keys = (keys ^ banded[:, :, place]) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return np.ascontiguousarray(keys.T)


def _densified(bins: np.ndarray) -> np.ndarray:
    """Fill every empty bin from the next full one to its right, marked by the distance."""
    places = np.arange(_NUM_BINS)
    doubled = np.concatenate([bins, bins], axis=1)
    next_full = np.where(doubled != _EMPTY, np.arange(2 * _NUM_BINS), 2 * _NUM_BINS - 1)
    next_full = np.minimum.accumulate(next_full[:, ::-1], axis=1)[:, ::-1][:, :_NUM_BINS]
    filled = np.take_along_axis(doubled, next_full, axis=1)
    return filled + (next_full - places).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)


class SignatureFile:
    """Band keys of a shard's rows, `near-00003.npy`, uint64 [bands, rows]; without `config` it does nothing."""

    def __init__(self, folder: Path, shard: int, config: NearDuplicateConfig | None) -> None:
        self._path = _keys_path(folder, shard)
        self._rows_per_band = None if config is None else band_rows(config.threshold)
        self._texts: list[str] = []
        self._num_runs = 0
        self._blocks: list[np.ndarray] = []

    def add(self, row: Row) -> None:
        """Append a row."""
        if self._rows_per_band is None:
            return
        text = comparable(Text(row.messages, row.answer))
        self._texts.append(text)
        self._num_runs += len(text)
        if self._num_runs >= _CHUNK_RUNS:
            self._flush()

    def _flush(self) -> None:
        if self._texts and self._rows_per_band is not None:
            self._blocks.append(band_keys(self._texts, rows_per_band=self._rows_per_band))
            self._texts, self._num_runs = [], 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._rows_per_band is not None:
            self._flush()
            empty = np.empty((_NUM_BINS // self._rows_per_band, 0), dtype=np.uint64)
            np.save(self._path, np.concatenate([empty, *self._blocks], axis=1))


def _keys_path(folder: Path, shard: int) -> Path:
    return folder / f"near-{shard:05d}.npy"


def find_near_pairs(
    index: Index, canonical: np.ndarray, config: NearDuplicateConfig | None, spill: Path, executor: Executor
) -> NearPairs:
    """All verified near-duplicate pairs of canonical rows that the bands bring together; none without `config`."""
    if config is None:
        return NO_PAIRS
    pairs = _candidates(index, canonical, config, spill)
    blocks = [pairs[:, start : start + _CHUNK_PAIRS] for start in range(0, pairs.shape[1], _CHUNK_PAIRS)]
    found = list(executor.map(_Similarity(spill, index.shard_starts), blocks))
    similarity = np.concatenate([np.empty(0, np.float32), *found])
    near = similarity >= config.threshold
    return NearPairs(first=pairs[0, near], second=pairs[1, near], similarity=similarity[near])


def _candidates(index: Index, canonical: np.ndarray, config: NearDuplicateConfig, spill: Path) -> np.ndarray:
    """Distinct candidate pairs, int64 [2, pairs], the smaller row first, sorted."""
    rows = np.flatnonzero(canonical == np.arange(len(canonical)))
    task, rank = index.rows["task"][rows], index.rows["rank"][rows]
    found = np.empty(0, dtype=np.int64)
    for keys in _bands(index, config, spill):
        of_rows = keys[rows]
        order = np.lexsort((rank, of_rows, task))
        key, owner, who = of_rows[order], task[order], rows[order]
        same = np.flatnonzero((key[1:] == key[:-1]) & (owner[1:] == owner[:-1])) + 1
        starts = np.ones(len(who), dtype=bool)
        starts[same] = False
        head = who[np.maximum.accumulate(np.where(starts, np.arange(len(who)), 0))]
        ends = np.stack([np.concatenate([who[same - 1], head[same]]), np.concatenate([who[same], who[same]])])
        ends.sort(axis=0)
        found = np.union1d(found, ends[0] * len(canonical) + ends[1])
    return np.stack(np.divmod(found, max(1, len(canonical))))


def _bands(index: Index, config: NearDuplicateConfig, spill: Path) -> Iterator[np.ndarray]:
    """The keys of all rows, uint64 [rows], band by band."""
    shards = [np.load(_keys_path(spill, shard), mmap_mode="r") for shard in range(len(index.shard_starts) - 1)]
    for band in range(_NUM_BINS // band_rows(config.threshold)):
        yield np.concatenate([np.empty(0, np.uint64), *(keys[band] for keys in shards)])


@dataclass(frozen=True, slots=True)
class _Similarity:
    """Jaccard similarity of pairs of rows, float32 [pairs], by their texts."""

    spill: Path
    shard_starts: np.ndarray

    def __call__(self, pairs: np.ndarray) -> np.ndarray:
        texts = read_texts(self.spill, self.shard_starts, pairs.ravel())
        runs = {row: runs_of(comparable(text)) for row, text in texts.items()}
        return np.array([_jaccard(runs[a], runs[b]) for a, b in pairs.T.tolist()], dtype=np.float32)


def _jaccard(first: np.ndarray, second: np.ndarray) -> float:
    num_common = len(np.intersect1d(first, second, assume_unique=True))
    return num_common / (len(first) + len(second) - num_common)
