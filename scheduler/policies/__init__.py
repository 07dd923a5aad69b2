"""Mixture policies: pure rules from evidence to target weights. Guards bound what they ask for.

Add one: a config model in `scheduler.setup.Policy`, a file with a function of the same shape here, a case in `decide`.
"""

from scheduler.policies.base import Evidence, Hold, Target
from scheduler.policies.heat import heat_target
from scheduler.policies.static import static_target
from scheduler.setup import HeatPolicy, Policy, StaticPolicy


def decide(policy: Policy, evidence: Evidence) -> Target | Hold:
    """What `policy` asks for on this evidence."""
    match policy:
        case StaticPolicy():
            return static_target(evidence)
        case HeatPolicy():
            return heat_target(policy, evidence)


__all__ = ["Evidence", "Hold", "Target", "decide"]
