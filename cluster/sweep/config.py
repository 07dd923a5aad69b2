"""What a sweep is: a run, a search space over its dotted settings, how to search it, and what is best."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, model_validator

from scheduler.config_model import ConfigModel

ObjectiveName = Literal["worst", "macro", "value_weighted"]
Conditions = dict[str, tuple[Any, ...]]


class _Domain(ConfigModel):
    """What every domain has: `when` names other keys and the values with which this key is searched at all."""

    when: Conditions = Field(default={}, description="search this key only where those keys have one of these values")

    @model_validator(mode="before")
    @classmethod
    def _one_value_is_a_list_of_one(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("when"), dict):
            when = {key: item if isinstance(item, list | tuple) else [item] for key, item in value["when"].items()}
            value = {**value, "when": when}
        return value


class ChoiceDomain(_Domain):
    """One of some values; a value may be a whole mapping, such as a policy with its parameters."""

    type: Literal["choice"] = "choice"
    values: tuple[Any, ...] = Field(min_length=1)


class UniformDomain(_Domain):
    """A number between `low` and `high`, both included; with `step`, a multiple of it above `low`."""

    type: Literal["uniform"] = "uniform"
    low: FiniteFloat
    high: FiniteFloat
    step: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _is_not_empty(self) -> "UniformDomain":
        return _with_room(self, self.low, self.high)


class LogUniformDomain(_Domain):
    """A positive number between `low` and `high` whose logarithm is uniform."""

    type: Literal["log_uniform"] = "log_uniform"
    low: float = Field(gt=0, allow_inf_nan=False)
    high: float = Field(gt=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _is_not_empty(self) -> "LogUniformDomain":
        return _with_room(self, self.low, self.high)


class IntegerDomain(_Domain):
    """An integer between `low` and `high`, both included, `step` apart; `log` draws small ones more often."""

    type: Literal["integer"] = "integer"
    low: int
    high: int
    step: int = Field(default=1, ge=1)
    log: bool = False

    @model_validator(mode="after")
    def _is_not_empty(self) -> "IntegerDomain":
        if self.log and (self.low < 1 or self.step > 1):
            raise ValueError("log: true needs low of at least 1 and step 1")
        return _with_room(self, self.low, self.high)


def _with_room(domain: Any, low: float, high: float) -> Any:
    if high < low:
        raise ValueError(f"high {high} lies below low {low}")
    return domain


Domain = Annotated[ChoiceDomain | UniformDomain | LogUniformDomain | IntegerDomain, Field(discriminator="type")]


class GridSearch(ConfigModel):
    """Every combination of every value; a range of numbers needs a `step`."""

    type: Literal["grid"] = "grid"


class RandomSearch(ConfigModel):
    """Independent draws; trial n depends on `seed` and n alone."""

    type: Literal["random"] = "random"
    trials: int = Field(ge=1)
    seed: int = Field(default=0, ge=0)


class OptunaSearch(ConfigModel):
    """Optuna's TPE (several objectives: its multi-objective form). Needs the package optuna.

    Trials are chosen while others run, so prefixes cannot be planned ahead: every trial begins at step 0.
    """

    type: Literal["optuna"] = "optuna"
    trials: int = Field(ge=1)
    seed: int = Field(default=0, ge=0)
    startup_trials: int = Field(default=8, ge=1, description="random trials before the model is asked")


Search = Annotated[GridSearch | RandomSearch | OptunaSearch, Field(discriminator="type")]


class ToTheEnd(ConfigModel):
    """Every trial is trained to its end."""

    type: Literal["none"] = "none"


class AshaSchedule(ConfigModel):
    """Asynchronous successive halving: at each rung only the best 1/`reduction_factor` of the trials go on."""

    type: Literal["asha"] = "asha"
    grace_steps: int = Field(ge=1, description="no trial is stopped before this step; the first rung")
    reduction_factor: int = Field(default=3, ge=2)


class PbtSchedule(ConfigModel):
    """Population-based training: every `every_steps` the worst clone the best and change their values a little.

    A clone is a fork: the donor's checkpoint under the changed settings. Only settings that a fork may change can be
    searched.
    """

    type: Literal["pbt"] = "pbt"
    every_steps: int = Field(ge=1, description="a multiple of mixture.interval_steps")
    quantile: float = Field(default=0.25, gt=0, le=0.5, description="share of trials that is replaced, and copied")
    resample_probability: float = Field(default=0.25, ge=0, le=1)
    seed: int = Field(default=0, ge=0)


class Pb2Schedule(ConfigModel):
    """PBT that chooses new values with a Gaussian process (PB2); numbers only. Needs the package scikit-learn."""

    type: Literal["pb2"] = "pb2"
    every_steps: int = Field(ge=1, description="a multiple of mixture.interval_steps")
    quantile: float = Field(default=0.25, gt=0, le=0.5)
    seed: int = Field(default=0, ge=0)


Schedule = Annotated[ToTheEnd | AshaSchedule | PbtSchedule | Pb2Schedule, Field(discriminator="type")]


class SweepOutput(ConfigModel):
    """Where sweeps are kept: in `dir/name`; without a name it is made from the file's name and the time."""

    dir: Path = Path("sweeps")
    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")


class SweepConfig(ConfigModel):
    """A search over one run's settings.

    Attributes:
        run: RunConfig files, laid over one another.
        overrides: Settings over those files for every trial, `a.b=value`.
        space: What is searched, by dotted setting.
        search: How trials are chosen.
        schedule: Which trials are trained to their end, and whether they learn from one another.
        objective: What is best, measured on the selection rows where there are any, else on the probes; never on test
            rows. `worst`: score of the worst task; `macro`: mean over tasks; `value_weighted`: mean weighted by
            `business_value`. Of several, the Pareto front is reported and the first chooses the winner.
        share_prefix: Train what trials have in common once, and fork.
        min_saved_steps: Share only where that many optimiser steps are saved: a shared part is a run of its own.
        max_concurrent: Trials at once; null: as many as the cluster holds.
        output: Where the sweep is kept.
    """

    run: tuple[Path, ...] = Field(min_length=1)
    overrides: tuple[str, ...] = ()
    space: dict[str, Domain] = Field(min_length=1)
    search: Search = GridSearch()
    schedule: Schedule = ToTheEnd()
    objective: tuple[ObjectiveName, ...] = Field(default=("macro",), min_length=1)
    share_prefix: bool = True
    min_saved_steps: int = Field(default=1, ge=1)
    max_concurrent: int | None = Field(default=None, ge=1)
    output: SweepOutput = SweepOutput()

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        """`run: run.yaml` and `objective: worst` for lists of one."""
        if isinstance(value, dict):
            short = {key: [value[key]] for key in ("run", "objective") if isinstance(value.get(key), str | Path)}
            value = {**value, **short}
        return value

    @model_validator(mode="after")
    def _parts_fit_together(self) -> "SweepConfig":
        if len(set(self.objective)) != len(self.objective):
            raise ValueError(f"objective {list(self.objective)} names one more than once; name each once")
        if isinstance(self.schedule, PbtSchedule | Pb2Schedule):
            if isinstance(self.search, OptunaSearch):
                raise ValueError(f"schedule.type {self.schedule.type} chooses values itself; use search.type: random")
            if self.max_concurrent is not None:
                raise ValueError(
                    f"max_concurrent {self.max_concurrent}: members of {self.schedule.type} take turns by "
                    "themselves; leave it out"
                )
            if any(domain.when for domain in self.space.values()):
                raise ValueError(f"schedule.type {self.schedule.type} cannot follow `when`; leave it out of the space")
        if isinstance(self.schedule, Pb2Schedule) and any(
            isinstance(domain, ChoiceDomain) for domain in self.space.values()
        ):
            raise ValueError("schedule.type pb2 searches numbers only; use pbt for a space with choices")
        return self

    @property
    def is_population(self) -> bool:
        """Trials learn from one another while they train."""
        return isinstance(self.schedule, PbtSchedule | Pb2Schedule)
