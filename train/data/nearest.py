"""Which texts are nearest to a given one: cosine of character n-gram TF-IDF, in any language.

A text is its runs of two and three characters (case, width and white space folded), its borders counted as characters,
so that one-character answers differ too and Chinese needs no word list. A run weighs (1 + log count) * idf, with
scikit-learn's smoothed idf = 1 + log((1 + N) / (1 + df)). Runs are hashed into 2**20 buckets: a collision blurs a
similarity in its third digit, equal texts stay at 1.

What this does not do: understand. A paraphrase that shares no wording is far away.
"""

import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
from scipy import sparse

from train.stream.permutation import mix64

_BORDER = "\0"
_NO_CHARACTER = np.uint64(0x1FFFFF)
"""Stands for the third character of a run of two; beyond Unicode."""
_NUM_BUCKETS = 1 << 20
_BUCKET_SHIFT = np.uint64(44)
_CHUNK_CHARACTERS = 1 << 21


def similarities(texts: Sequence[str], query: str) -> np.ndarray:
    """Similarity of every text to the query.

    Args:
        texts: At least one. Memory is about 16 bytes a character.
        query: Any text.

    Returns:
        float64 [N] in [0, 1]: 1 for a text equal to the query but for case, width and white space, 0 for one that
        shares no run of two characters with it.
    """
    runs = sparse.csr_matrix(sparse.vstack([_count_runs(chunk) for chunk in _chunks(texts)]))
    wanted = _count_runs([query])
    num_texts_with = np.bincount(runs.indices, minlength=_NUM_BUCKETS)
    idf = 1 + np.log((1 + len(texts)) / (1 + num_texts_with))
    for matrix in (runs, wanted):
        matrix.data = ((1 + np.log(matrix.data)) * idf[matrix.indices]).astype(np.float32)
    dots = np.asarray((runs @ wanted.T).todense(), dtype=np.float64).ravel()
    return np.clip(dots / (_norms(runs) * _norms(wanted)), 0.0, 1.0)


def _norms(matrix: sparse.csr_matrix) -> np.ndarray:
    """float64 [rows]; no text is without runs: an empty one has its two borders."""
    return np.sqrt(np.add.reduceat(matrix.data.astype(np.float64) ** 2, matrix.indptr[:-1]))


def _chunks(texts: Sequence[str]) -> Iterator[list[str]]:
    """The texts in order, some two million characters at a time."""
    chunk: list[str] = []
    size = 0
    for text in texts:
        chunk.append(text)
        size += len(text) + 1
        if size >= _CHUNK_CHARACTERS:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _count_runs(texts: Sequence[str]) -> sparse.csr_matrix:
    """float32 [texts, buckets]: how often each run occurs in each text."""
    joined = _BORDER + _BORDER.join(_folded(text) for text in texts) + _BORDER
    characters = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    is_border = characters == 0
    text_of = np.cumsum(is_border) - 1
    first, second, third = characters[:-2], characters[1:-1], characters[2:]
    within = ~is_border[1:-1]  # a border in the middle: the run would join two texts
    twos = characters[:-1] | characters[1:] << np.uint64(21) | _NO_CHARACTER << np.uint64(42)
    threes = (first | second << np.uint64(21) | third << np.uint64(42))[within]
    buckets = (mix64(np.concatenate([twos, threes])) >> _BUCKET_SHIFT).astype(np.int32)
    rows = np.concatenate([text_of[:-1], text_of[:-2][within]]).astype(np.int32)
    ones = np.ones(len(buckets), dtype=np.float32)
    return sparse.csr_matrix((ones, (rows, buckets)), shape=(len(texts), _NUM_BUCKETS))


def _folded(text: str) -> str:
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.casefold().replace(_BORDER, " ").split())
