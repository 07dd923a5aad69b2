"""The static mixture: the prior, whatever the evidence. The yardstick of every adaptive policy."""

from scheduler.policies.base import Evidence, Target, log_prior


def static_target(evidence: Evidence) -> Target:
    """Target weights equal to the prior."""
    return Target(log_prior(evidence.prior))
