"""The ontology card of a task: what it is, what a good answer is, what it is worth."""

from typing import Annotated, Literal

from pydantic import Field, FiniteFloat

from scheduler.config_model import ConfigModel
from scheduler.output_spec import OutputRule

Kind = Literal["logic", "knowledge", "style", "safety", "general"]
Tier = Literal["core", "standard", "long_tail"]


class ExactChecker(ConfigModel):
    """Score 1 when every answer token, stop token included, is the most likely one (teacher-forced exact match)."""

    type: Literal["exact"] = "exact"


class NumericChecker(ConfigModel):
    """Score 1 when the last number of the generated answer is within `tolerance` (absolute) of the reference's."""

    type: Literal["numeric"] = "numeric"
    tolerance: float = Field(default=0.0, ge=0)


class OverlapChecker(ConfigModel):
    """Score in [0, 1]: F1 of the generated answer's words against the reference's; for free text."""

    type: Literal["overlap"] = "overlap"


class RulesChecker(ConfigModel):
    """Score in [0, 1]: share of the task's output rules that the generated answer keeps; for style and safety tasks."""

    type: Literal["rules"] = "rules"


Checker = Annotated[ExactChecker | NumericChecker | OverlapChecker | RulesChecker, Field(discriminator="type")]


class Repetition(ConfigModel):
    """How often a task's rows may be trained, and what happens when they are used up.

    After `max_epochs` passes (null: no end) the task is served no more: `redistribute` gives its share to the other
    tasks in proportion to theirs, `stop` ends the run there.
    """

    max_epochs: float | None = Field(default=None, gt=0)
    then: Literal["redistribute", "stop"] = "redistribute"


class TaskCard(ConfigModel):
    """What a person writes about a task, under its name.

    Everything has a default: a task may be no more than its name. `base_weight` replaces the task's share of the
    mixture's prior before normalisation; `business_value` multiplies it. `output_rules` judge answers, those of the
    data and those of the model; `input_rules` judge the turn to be answered, in the data.
    """

    family: str = "general"
    kind: Kind = "general"
    tier: Tier = "standard"
    description: str = ""
    preconditions: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    input_rules: tuple[OutputRule, ...] = ()
    output_rules: tuple[OutputRule, ...] = ()
    repetition: Repetition = Repetition()
    checker: Checker = ExactChecker()
    evaluation_dimensions: tuple[str, ...] = ()
    failure_modes: tuple[str, ...] = ()
    difficulty_levels: int = Field(default=3, ge=1)
    business_value: FiniteFloat = Field(default=1.0, gt=0)
    base_weight: FiniteFloat | None = Field(default=None, ge=0)
    target_score: float = Field(default=0.9, gt=0, le=1)
    kpi: str = ""


class TaskSpec(TaskCard):
    """One named behaviour the model is trained for: its name and its card."""

    name: str = Field(min_length=1)
