"""What can be told of a run's policies before it begins: which setting chose them, and for which there may be no time.

What can work in no run at all is refused where the policy is resolved; here is what a longer run could do.
"""

import math
from collections.abc import Iterator

import numpy as np

from scheduler.policies.aioli import counted_evaluations, default_forgetting
from scheduler.policies.odm import OdmRule
from scheduler.policy_config import AioliPolicy, OdmPolicy, Policy
from scheduler.prior import prior_weights
from scheduler.setup import CapabilityBoundary, EngineSetup, FractionBoundary, StepBoundary


def place_of(policy: Policy, setup: EngineSetup) -> str:
    """The setting that chose `policy`, e.g. `stages.1.policy`; `policy` where none of the setup's did."""
    stages = zip(setup.stage_policies, ("stages.0.policy", "stages.1.policy"), strict=True)
    places = ((setup.mixture.policy, "mixture.policy"), *stages)
    return next((place for chosen, place in places if chosen == policy), "policy")


def num_weighted(setup: EngineSetup) -> int:
    """Tasks with a prior above zero."""
    return int(np.count_nonzero(prior_weights(setup)))


def policy_notes(setup: EngineSetup) -> tuple[str, ...]:
    """A sentence for every policy that cannot move a weight of its own in this run, or may never be asked."""
    return tuple(dict.fromkeys((*_notes(setup), *_of_the_freeze(setup))))


def _notes(setup: EngineSetup) -> Iterator[str]:
    num_tasks = num_weighted(setup)
    stages = (1,) if setup.boundary is None else (1, 2)
    for stage in stages:
        policy, steps = setup.stage_policies[stage - 1], _deciding_steps(stage, setup)
        if not steps:
            continue
        place = place_of(policy, setup)
        match policy:
            case OdmPolicy() if OdmRule(policy).exploration(steps[-1], num_tasks) >= 1.0:
                yield (
                    f"{place}: odm asks for the prior alone in the first K ln K steps, "
                    f"{math.ceil(num_tasks * math.log(num_tasks))} with {num_tasks} tasks, and decides last at step "
                    f"{steps[-1]}; train longer, or take another policy."
                )
            case AioliPolicy():
                yield from _of_aioli(policy, num_tasks, num_gains=sum(step > 0 for step in steps), place=place)
            case _:
                pass


def _of_aioli(policy: AioliPolicy, num_tasks: int, *, num_gains: int, place: str) -> Iterator[str]:
    forgetting = default_forgetting(num_tasks) if policy.forgetting is None else policy.forgetting
    counted = counted_evaluations(forgetting, num_gains)
    if counted <= num_tasks:
        remedy = f"set {place}.forgetting to 1, or evaluate" if num_gains > num_tasks else "evaluate"
        yield (
            f"{place}: aioli corrects nothing before more evaluations count than the {num_tasks} tasks; of the run's "
            f"{num_gains} with a gain {counted:.3g} count in the end, so its base decides alone; "
            f"{remedy} more often (mixture.interval_steps)."
        )


def _of_the_freeze(setup: EngineSetup) -> Iterator[str]:
    """A capability that is late may leave stage 2 no time; a fixed boundary that does so is refused (`EngineSetup`)."""
    frozen, boundary = setup.mixture.states.frozen_after, setup.boundary
    if frozen is None or not isinstance(boundary, CapabilityBoundary):
        return
    latest = math.ceil(boundary.limit(setup.total_steps) / setup.interval_steps) * setup.interval_steps
    if latest >= frozen * setup.total_steps:
        yield (
            f"mixture.states.frozen_after {frozen:g}: the mixture is frozen from step "
            f"{math.ceil(frozen * setup.total_steps)} on, and stage 1 may last to step {latest} "
            "(stages.0.until.max_steps); stage 2 and its policy would then never begin; freeze later, or set max_steps "
            "lower."
        )


def _deciding_steps(stage: int, setup: EngineSetup) -> range:
    """Evaluations on which the policy of stage 1 or 2 decides, as many as the boundary allows."""
    begins, ends = 0, setup.total_steps
    if setup.boundary is not None and setup.stage_policies[0] != setup.stage_policies[1]:
        match setup.boundary:
            case StepBoundary(step=step):
                earliest = latest = step
            case FractionBoundary(fraction=fraction):
                earliest = latest = math.ceil(fraction * setup.total_steps)
            case capability:
                earliest, latest = capability.min_steps, capability.limit(setup.total_steps)
        if stage == 1:
            ends = min(ends, latest - setup.lag_steps)
        else:
            begins = max(0, earliest - setup.lag_steps)
    interval = setup.interval_steps
    return range(math.ceil(begins / interval) * interval, ends, interval)
