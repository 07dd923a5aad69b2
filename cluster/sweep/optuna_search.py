"""Optuna as a searcher of Ray Tune: asks for the values of the next trial, tells what came of it.

Tune's own bridge cannot be told of trials that finished before a crash when the space has conditions; this one can.
Several objectives make a multi-objective study.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ray.tune.search import Searcher

from cluster.sweep.config import (
    ChoiceDomain,
    Domain,
    IntegerDomain,
    LogUniformDomain,
    ObjectiveName,
    OptunaSearch,
    UniformDomain,
)
from cluster.sweep.directory import trial_name
from cluster.sweep.space import Values, is_active, ordered
from scheduler.errors import ConfigError


class OptunaSearcher(Searcher):
    """See the module docstring. Trials are numbered from `first_number` on; `num_trials` are suggested."""

    def __init__(
        self,
        *,
        sweep: str,
        space: Mapping[str, Domain],
        search: OptunaSearch,
        objective: Sequence[ObjectiveName],
        first_number: int = 0,
        num_trials: int,
    ) -> None:
        super().__init__(metric=objective[0], mode="max")
        self._sweep, self._space, self._objective = sweep, dict(space), tuple(objective)
        self._next, self._end = first_number, first_number + num_trials
        self._asked: dict[str, Any] = {}
        self._study = optuna_package().create_study(
            directions=["maximize"] * len(objective),
            sampler=optuna_package().samplers.TPESampler(
                seed=search.seed + first_number, n_startup_trials=search.startup_trials, multivariate=True, group=True
            ),
        )

    def know(self, values: Values, objectives: Sequence[float]) -> None:
        """Tell of a trial that has finished already."""
        self._study.enqueue_trial({key: _coded(self._space[key], value) for key, value in values.items()})
        trial = self._study.ask()
        suggested(trial, self._space)
        self._study.tell(trial, list(objectives))

    def suggest(self, trial_id: str) -> Any:
        """The next trial's config, a dict; or that there is none."""
        if self._next >= self._end:
            return Searcher.FINISHED
        trial = self._asked[trial_id] = self._study.ask()
        values = suggested(trial, self._space)
        name, self._next = trial_name(self._next), self._next + 1
        return {"sweep": self._sweep, "objective": list(self._objective), "trial": name, "values": values}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell what came of it; a failed trial is told as failed."""
        trial = self._asked.pop(trial_id)
        if error or result is None or any(name not in result for name in self._objective):
            self._study.tell(trial, state=optuna_package().trial.TrialState.FAIL)
        else:
            self._study.tell(trial, [result[name] for name in self._objective])

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: finished trials are read from their runs."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""


def suggested(trial: Any, space: Mapping[str, Domain]) -> Values:
    """What an Optuna trial suggests; keys whose conditions do not hold are left out."""
    values: Values = {}
    for key in ordered(space):
        domain = space[key]
        if not is_active(domain, values):
            continue
        match domain:
            case ChoiceDomain(values=choices):
                values[key] = choices[trial.suggest_categorical(key, list(range(len(choices))))]
            case IntegerDomain(low=low, high=high, step=step, log=log):
                values[key] = trial.suggest_int(key, low, high, step=step, log=log)
            case UniformDomain(low=low, high=high, step=step):
                values[key] = trial.suggest_float(key, low, high, step=step)
            case LogUniformDomain(low=low, high=high):
                values[key] = trial.suggest_float(key, low, high, log=True)
    return values


def _coded(domain: Domain, value: Any) -> Any:
    """A choice as its number: Optuna's categories are scalars, and ours may be mappings."""
    return domain.values.index(value) if isinstance(domain, ChoiceDomain) else value


def optuna_package() -> Any:
    """The package. Raises ConfigError where it is not installed."""
    try:
        import optuna  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ConfigError(
            "search.type: optuna needs the package optuna, which is not installed; install it "
            "(pip install 'taskheat[sweep]'), or use search.type: random"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
