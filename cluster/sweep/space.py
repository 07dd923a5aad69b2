"""The search space: which keys a trial sets, and to what. Pure: a trial is a function of (space, seed, number).

A key with `when` is searched only where the keys it names have one of the values it names; keys are drawn after those
they depend on. A trial's settings are overrides on the command line's terms, so that they mean what they mean there.
"""

import json
import math
import random
from collections.abc import Iterator, Mapping
from typing import Any

from cluster.sweep.config import ChoiceDomain, Domain, IntegerDomain, LogUniformDomain, UniformDomain
from scheduler.errors import ConfigError

Values = dict[str, Any]
_ROUNDING = 1e-9


def ordered(space: Mapping[str, Domain]) -> list[str]:
    """Keys of the space, each after those it depends on and after those it stands under.

    Raises:
        ConfigError: A condition names a key that is not searched, or keys depend on one another in a circle.
    """
    for key, domain in space.items():
        for other in domain.when:
            if other not in space:
                raise ConfigError(
                    f"space.{key}: `when` names {other}, which is not searched; the space has {', '.join(space)}"
                )
    found: list[str] = []
    rest = sorted(space, key=lambda key: key.count("."))
    while rest:
        ready = [key for key in rest if all(other in found for other in space[key].when)]
        if not ready:
            raise ConfigError(f"space: the conditions of {', '.join(rest)} wait for one another; break the circle")
        found += ready
        rest = [key for key in rest if key not in ready]
    return found


def is_active(domain: Domain, values: Mapping[str, Any]) -> bool:
    """The domain's conditions hold under the values drawn so far."""
    return all(key in values and values[key] in wanted for key, wanted in domain.when.items())


def draw(space: Mapping[str, Domain], *, seed: int, trial: int) -> Values:
    """The values of a random trial."""
    values: Values = {}
    for key in ordered(space):
        if is_active(space[key], values):
            values[key] = _drawn(space[key], random.Random(f"{seed}/{trial}/{key}"))
    return values


def grid(space: Mapping[str, Domain]) -> Iterator[Values]:
    """Every combination, the last key changing fastest.

    Raises:
        ConfigError: A domain has no end of values.
    """
    keys = ordered(space)
    for key in keys:
        listed(key, space[key])
    yield from _combinations(space, keys, {})


def _combinations(space: Mapping[str, Domain], keys: list[str], values: Values) -> Iterator[Values]:
    if not keys:
        yield dict(values)
        return
    key, *rest = keys
    if not is_active(space[key], values):
        yield from _combinations(space, rest, values)
        return
    for value in listed(key, space[key]):
        yield from _combinations(space, rest, {**values, key: value})


def listed(key: str, domain: Domain) -> list[Any]:
    """All values of a domain. Raises ConfigError for a range without a step."""
    match domain:
        case ChoiceDomain(values=values):
            return list(values)
        case IntegerDomain(low=low, high=high, step=step):
            return list(range(low, high + 1, step))
        case UniformDomain(low=low, high=high, step=float(step)):
            return [low + index * step for index in range(_num_steps(low, high, step) + 1)]
        case _:
            raise ConfigError(
                f"space.{key}: a {domain.type} has no end of values, so there is no grid; give `step` (uniform) or "
                "`values`, or use search.type: random"
            )


def corners(space: Mapping[str, Domain]) -> Iterator[Values]:
    """Few trials that between them have every choice and both ends of every range, to try a space out."""
    ends = {key: _ends(domain) for key, domain in space.items()}
    for index in range(max(map(len, ends.values()))):
        for shift in range(2):
            values: Values = {}
            for place, key in enumerate(ordered(space)):
                if is_active(space[key], values):
                    values[key] = ends[key][(index + shift * place) % len(ends[key])]
            yield values
    for key, domain in space.items():
        if domain.when:
            values = {}
            for other in ordered(space):
                wanted = domain.when.get(other)
                if is_active(space[other], values):
                    values[other] = ends[other][0] if wanted is None else wanted[0]
            for value in ends[key]:
                if is_active(domain, values):
                    yield {**values, key: value}


def bounded(domain: Domain, value: Any) -> Any:
    """A perturbed value, brought back into its domain."""
    match domain:
        case ChoiceDomain(values=values):
            return value if value in values else values[0]
        case IntegerDomain(low=low, high=high, step=step):
            return min(max(low, low + round((value - low) / step) * step), low + (high - low) // step * step)
        case UniformDomain(low=low, high=high, step=float(step)):
            return low + min(max(0, round((value - low) / step)), _num_steps(low, high, step)) * step
        case UniformDomain(low=low, high=high) | LogUniformDomain(low=low, high=high):
            return min(max(low, float(value)), high)


def overrides(values: Mapping[str, Any]) -> list[str]:
    """The values as `a.b=value`."""
    return [f"{key}={json.dumps(value, ensure_ascii=False).replace('${', '$${')}" for key, value in values.items()]


def label(values: Mapping[str, Any]) -> str:
    """The values in words, for tables and messages."""
    return ", ".join(f"{key}={shown(value)}" for key, value in values.items()) or "as configured"


def shown(value: Any) -> str:
    """One value in words: of a mapping its type and what else it sets."""
    if isinstance(value, dict):
        rest = ", ".join(f"{key} {shown(item)}" for key, item in value.items() if key != "type")
        kind = str(value.get("type", ""))
        return f"{kind} ({rest})".strip() if rest else kind
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _ends(domain: Domain) -> list[Any]:
    return list(domain.values) if isinstance(domain, ChoiceDomain) else [domain.low, domain.high]


def _drawn(domain: Domain, generator: random.Random) -> Any:
    match domain:
        case ChoiceDomain(values=values):
            return generator.choice(values)
        case IntegerDomain(low=low, high=high, log=True):
            return min(high, int(math.exp(generator.uniform(math.log(low), math.log(high + 1)))))
        case IntegerDomain(low=low, high=high, step=step):
            return generator.randrange(low, high + 1, step)
        case UniformDomain(low=low, high=high, step=float(step)):
            return low + generator.randint(0, _num_steps(low, high, step)) * step
        case UniformDomain(low=low, high=high):
            return generator.uniform(low, high)
        case LogUniformDomain(low=low, high=high):
            return min(high, max(low, math.exp(generator.uniform(math.log(low), math.log(high)))))


def _num_steps(low: float, high: float, step: float) -> int:
    return math.floor((high - low) / step + _ROUNDING)
