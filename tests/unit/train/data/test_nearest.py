import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from train.data import nearest
from train.data.nearest import similarities

TEXTS = ["流动性覆盖率为120%", "信用利差扩大", "The ratio is 120%", "the  RATIO is 120%", "", "7"]


def by_definition(texts: list[str], query: str) -> list[float]:
    """The same cosine with exact runs, counted one by one."""

    def runs(text: str) -> Counter[str]:
        bordered = f"\0{' '.join(text.casefold().split())}\0"
        return Counter(bordered[i : i + n] for n in (2, 3) for i in range(len(bordered) - n + 1))

    counts = [runs(text) for text in texts]
    with_run = Counter(run for count in counts for run in count)

    def weights(count: Counter[str]) -> dict[str, float]:
        return {
            run: (1 + math.log(n)) * (1 + math.log((1 + len(texts)) / (1 + with_run[run]))) for run, n in count.items()
        }

    wanted = weights(runs(query))
    found = []
    for weighed in map(weights, counts):
        dot = sum(weight * wanted.get(run, 0.0) for run, weight in weighed.items())
        found.append(dot / math.hypot(*weighed.values()) / math.hypot(*wanted.values()))
    return found


@given(st.lists(st.text("ab 率覆", max_size=12), min_size=1, max_size=8), st.text("ab 率覆", max_size=12))
def test_a_similarity_is_the_cosine_of_tf_idf_over_runs_of_two_and_three_characters(
    texts: list[str], query: str
) -> None:
    assert similarities(texts, query) == pytest.approx(by_definition(texts, query), abs=1e-5)


def test_equal_texts_are_at_one_but_for_case_width_and_white_space() -> None:
    assert similarities(TEXTS, "THE ratio is １２０％")[[2, 3]] == pytest.approx([1, 1])
    assert similarities(TEXTS, "7").argmax() == 5


def test_chinese_is_near_to_chinese_that_shares_its_characters() -> None:
    found = similarities(TEXTS, "流动性覆盖率为110%")
    assert found.argmax() == 0
    assert found[1] == 0.0


def test_the_size_of_a_chunk_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = similarities(TEXTS * 5, "ratio 120")
    monkeypatch.setattr(nearest, "_CHUNK_CHARACTERS", 20)
    assert np.array_equal(similarities(TEXTS * 5, "ratio 120"), whole)
