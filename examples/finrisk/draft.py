"""What every task's recipe draws from: a row before it has an id, its context, its difficulty factors."""

from dataclasses import dataclass
from random import Random

from examples.finrisk.rulebook import INDUSTRIES, RATINGS, TENORS, YEAR_SUFFIX, Language

Phrasings = dict[Language, tuple[str, ...]]
"""Wordings of one instruction, from the most explicit to the tersest: the position is the row's ambiguity."""


@dataclass(frozen=True, slots=True)
class DifficultyFactors:
    """What makes a row hard, each from 1 (little) to 5 (much)."""

    knowledge_breadth: int
    reasoning_steps: int
    constraints: int
    ambiguity: int

    def __post_init__(self) -> None:
        for name in self.__slots__:
            assert 1 <= getattr(self, name) <= 5, f"{name}={getattr(self, name)}"


@dataclass(frozen=True, slots=True)
class Context:
    """The setting of a row: it is written into the input, and for several tasks it decides the answer."""

    language: Language
    industry: str
    tenor_years: int
    rating: str

    @property
    def text(self) -> str:
        """For example `energy 5y BBB` or `能源 5年 BBB`."""
        return f"{self.industry} {self.tenor_years}{YEAR_SUFFIX[self.language]} {self.rating}"


@dataclass(frozen=True, slots=True)
class Draft:
    """One instruction, input and output with what is known about them."""

    instruction: str
    input: str
    output: str
    context: Context
    factors: DifficultyFactors


def draw_context(rng: Random, language: Language) -> Context:
    """One industry, tenor and rating, independently and uniformly."""
    return Context(language, rng.choice(INDUSTRIES[language]), rng.choice(TENORS), rng.choice(RATINGS))


def draw_phrasing(rng: Random, phrasings: Phrasings, language: Language) -> tuple[str, int]:
    """A wording and its ambiguity (1 = the most explicit)."""
    position = rng.randrange(len(phrasings[language]))
    return phrasings[language][position], position + 1
