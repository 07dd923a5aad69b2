"""Mixture policies: pure rules from evidence and their own memory to target weights. Guards bound what they ask for.

Add one: a config model in `scheduler.policy_config.Policy`, a file with a `Rule` here, a case in `resolve`.
"""

from collections.abc import Iterable

import numpy as np

from scheduler.allocation import AdaptiveAllocation
from scheduler.errors import ConfigError
from scheduler.policies.ado import AdoRule
from scheduler.policies.aioli import AioliRule, counted_evaluations, default_forgetting
from scheduler.policies.base import Answer, Array, Evidence, Hold, Memory, Rule, Target, thin_evidence
from scheduler.policies.exp3 import Exp3Rule
from scheduler.policies.gradient import GradientRule
from scheduler.policies.group_dro import GroupDroRule
from scheduler.policies.heat import HeatRule
from scheduler.policies.history import History
from scheduler.policies.notes import num_weighted, place_of, policy_notes
from scheduler.policies.odm import OdmRule
from scheduler.policies.progress import ProgressRule
from scheduler.policies.schedule import ScheduleRule
from scheduler.policies.skill_it import SkillItRule
from scheduler.policies.static import StaticRule
from scheduler.policies.target_gap import TargetGapRule
from scheduler.policy_config import (
    AdaptivePolicy,
    AdoPolicy,
    AioliPolicy,
    Exp3Policy,
    ExplicitPrior,
    GradientPolicy,
    GroupDroPolicy,
    HeatPolicy,
    OdmPolicy,
    Policy,
    Prior,
    ProgressPolicy,
    SchedulePolicy,
    SkillItPolicy,
    StaticPolicy,
    TargetGapPolicy,
)
from scheduler.prior import prior_weights
from scheduler.setup import EngineSetup

_LEAST_COUNTED = 1.25
"""Evaluations per task that must be able to count in an estimate of effects."""


def resolve(policy: Policy, setup: EngineSetup) -> Rule:
    """The rule of `policy` for the tasks of a run.

    Raises:
        ConfigError: A setting names no task of the run, or the policy cannot handle as many tasks, or can do nothing
            under the other settings.
    """
    return _rule(policy, setup, place_of(policy, setup))


def _rule(policy: Policy, setup: EngineSetup, place: str) -> Rule:  # noqa: C901 -- one case a policy
    match policy:
        case StaticPolicy():
            return StaticRule()
        case SchedulePolicy():
            before = policy.before or setup.mixture.prior
            return ScheduleRule(
                policy, _shares(before, setup, f"{place}.before"), _shares(policy.after, setup, f"{place}.after")
            )
        case HeatPolicy():
            return HeatRule(policy)
        case ProgressPolicy():
            return ProgressRule(policy)
        case TargetGapPolicy():
            targets = _by_task(policy.target_losses, setup, f"{place}.target_losses", default=np.nan)
            return TargetGapRule(policy, targets)
        case GroupDroPolicy():
            references = _by_task(policy.reference_losses, setup, f"{place}.reference_losses", default=0.0)
            return GroupDroRule(policy, references)
        case Exp3Policy():
            return Exp3Rule(policy)
        case OdmPolicy():
            return OdmRule(policy)
        case AdoPolicy():
            return _ado(policy, setup)
        case GradientPolicy():
            return GradientRule(policy, setup.global_batch_size)
        case SkillItPolicy():
            return _skill_it(policy, setup, place)
        case AioliPolicy():
            return _aioli(policy, setup, place)


def answer(policy: Policy, rule: Rule, evidence: Evidence, memory: Memory) -> Answer:
    """What `policy` asks for; too thin an evaluation moves no weight and leaves an adaptive policy's memory alone."""
    if isinstance(policy, AdaptivePolicy):
        if not evidence.fresh.any():
            return Answer(Hold("no task was measured in this evaluation"), memory)
        what = "the tasks measured in this evaluation"
        held = thin_evidence(evidence.prior, evidence.fresh, min_ratio=policy.min_measured_ratio, what=what)
        if held is not None:
            return Answer(held, memory)
    return rule.step(evidence, memory)


def _ado(policy: AdoPolicy, setup: EngineSetup) -> AdoRule:
    if setup.mixture.weight_unit == "tokens":
        return AdoRule(policy, policy.offset_samples * np.array(setup.mean_supervised_tokens), "supervised tokens")
    return AdoRule(policy, np.full(len(setup.tasks), float(policy.offset_samples)), "samples")


def _aioli(policy: AioliPolicy, setup: EngineSetup, place: str) -> AioliRule:
    num_all, num_tasks = len(setup.tasks), num_weighted(setup)
    if num_all > policy.max_tasks:
        raise ConfigError(
            f"{place}: {num_all} tasks have {num_all**2} effects on each other to estimate, and max_tasks is "
            f"{policy.max_tasks}: raise it (64 at most), or take another policy than aioli"
        )
    usual = default_forgetting(num_tasks)
    forgetting = usual if policy.forgetting is None else policy.forgetting
    counted = counted_evaluations(forgetting)
    if counted < _LEAST_COUNTED * num_tasks:
        raise ConfigError(
            f"{place}.forgetting: at {forgetting:g} no more than {counted:.3g} evaluations ever count, too few to tell "
            f"the effects of {num_tasks} tasks apart, so that the base would decide alone; leave it out, or set it to "
            f"{usual:.4g} or more"
        )
    allocation = setup.mixture.allocation
    if isinstance(allocation, AdaptiveAllocation) and allocation.max_gap_evaluations > 1:
        raise ConfigError(
            f"mixture.allocation.max_gap_evaluations: at {allocation.max_gap_evaluations} evaluations leave tasks out, "
            f"and aioli ({place}) learns only from those that measure every task: set it to 1, or take another policy"
        )
    return AioliRule(policy, _rule(policy.base, setup, f"{place}.base"), forgetting)


def _skill_it(policy: SkillItPolicy, setup: EngineSetup, place: str) -> SkillItRule:
    index_of = {task.name: index for index, task in enumerate(setup.tasks)}
    _known(policy.prerequisites, setup, f"{place}.prerequisites")
    _known(policy.effects, setup, f"{place}.effects")
    edges = {(index, index): 1.0 for index in range(len(index_of))}
    for task, needed in policy.prerequisites.items():
        _known(needed, setup, f"{place}.prerequisites.{task}")
        edges |= {(index_of[name], index_of[task]): policy.prerequisite_effect for name in needed}
    for source, effects in policy.effects.items():
        _known(effects, setup, f"{place}.effects.{source}")
        edges |= {(index_of[source], index_of[name]): worth for name, worth in effects.items()}
    sources, helped = np.array(list(edges)).T
    return SkillItRule(policy, sources, helped, np.array(list(edges.values()), dtype=np.float64))


def _shares(prior: Prior, setup: EngineSetup, place: str) -> Array:
    if isinstance(prior, ExplicitPrior):
        _known(prior.weights, setup, f"{place}.weights")
    mixture = setup.mixture.model_copy(update={"prior": prior})
    return prior_weights(setup.model_copy(update={"mixture": mixture}))


def _by_task(given: dict[str, float], setup: EngineSetup, place: str, *, default: float) -> Array:
    _known(given, setup, place)
    return np.array([given.get(task.name, default) for task in setup.tasks])


def _known(names: Iterable[str], setup: EngineSetup, place: str) -> None:
    tasks = [task.name for task in setup.tasks]
    unknown = sorted(set(names) - set(tasks))
    if unknown:
        raise ConfigError(f"{place} names {unknown}, which are not tasks of this run; the tasks are {tasks}")


__all__ = ["Evidence", "History", "Hold", "Memory", "Rule", "Target", "answer", "policy_notes", "resolve"]
