"""Which training is done once: trunks, and the trials that fork from them; pure.

    trials that agree until …             trunk 0: one of them, stopped at its last fork
                                          0 ──── 50 ──── 100 ──── 150
    (b 100, p) (b 150, p) (b 200, p)              ├─► b 100, p   ├─► b 200, p
    (b 100, q)                                    ├─► b 100, q   (checkpoint at each fork)
                                                  └── …  └─► b 150, p

A trunk is a run of one trial's configuration, its *representative's*, that ends at its last fork. Everything a trunk
trains belongs to all trials that fork from it or from a trunk that does. How long two runs agree is an ultrametric (two
that agree with a third until step s agree with each other until s), so the plan is a forest.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.sweep.timeline import Timeline, agree_until


@dataclass(frozen=True, slots=True)
class Origin:
    """The checkpoint at `step` of trunk number `trunk`."""

    trunk: int
    step: int


@dataclass(frozen=True, slots=True)
class Trunk:
    """Trial `representative`'s run up to `stop`, from its own origin; checkpoints at `forks`, `stop` among them."""

    representative: int
    origin: Origin | None
    stop: int
    forks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SharingPlan:
    """Trunks, each after the one it forks from, and where each trial begins; None: at step 0."""

    trunks: tuple[Trunk, ...]
    origins: tuple[Origin | None, ...]

    def trained_steps(self, timelines: Sequence[Timeline]) -> int:
        """Optimiser steps of all trunks and trials."""
        trunks = sum(trunk.stop - _step(trunk.origin) for trunk in self.trunks)
        return trunks + sum(
            line.last_step - _step(origin) for line, origin in zip(timelines, self.origins, strict=True)
        )


def unshared(num_trials: int) -> SharingPlan:
    """Every trial from step 0."""
    return SharingPlan(trunks=(), origins=(None,) * num_trials)


def plan_sharing(timelines: Sequence[Timeline], *, min_saved_steps: int = 1) -> SharingPlan:
    """The trunks that save `min_saved_steps` optimiser steps or more each, and where every trial begins."""
    planner = _Planner(timelines, min_saved_steps)
    for members in _groups(timelines, list(range(len(timelines))), beyond=0):
        planner.share(members, None)
    forks: list[set[int]] = [{stop} for _, _, stop in planner.trunks]
    for origin in [*planner.origins, *(origin for _, origin, _ in planner.trunks)]:
        if origin is not None:
            forks[origin.trunk].add(origin.step)
    trunks = (
        Trunk(representative, origin, stop, tuple(sorted(steps)))
        for (representative, origin, stop), steps in zip(planner.trunks, forks, strict=True)
    )
    return SharingPlan(trunks=tuple(trunks), origins=tuple(planner.origins))


class _Planner:
    """Collects trunks (representative, origin, stop) and each trial's origin."""

    def __init__(self, timelines: Sequence[Timeline], min_saved_steps: int) -> None:
        self._timelines, self._min_saved = timelines, min_saved_steps
        self.trunks: list[tuple[int, Origin | None, int]] = []
        self.origins: list[Origin | None] = [None] * len(timelines)

    def share(self, members: list[int], origin: Origin | None) -> None:
        """Plan trials that agree beyond `origin` with one another."""
        start = _step(origin)
        path = {member: self._closest(member, members) for member in members}
        stop = max(path.values(), default=0) if len(members) > 1 else start
        representative = max(members, key=lambda member: path[member])
        agreed = {member: self._agree(representative, member) for member in members if member != representative}
        saved = sum(step - start for step in agreed.values())
        if len(members) == 1 or saved < self._min_saved:
            for member in members:
                self.origins[member] = origin
            return
        number = len(self.trunks)
        self.trunks.append((representative, origin, stop))
        self.origins[representative] = Origin(number, stop)
        for step in sorted(set(agreed.values())):
            leaving = [member for member, until in agreed.items() if until == step]
            for group in _groups(self._timelines, leaving, beyond=step):
                self.share(group, Origin(number, step))

    def _closest(self, member: int, members: list[int]) -> int:
        return max((self._agree(member, other) for other in members if other != member), default=0)

    def _agree(self, one: int, other: int) -> int:
        return agree_until(self._timelines[one], self._timelines[other])


def _groups(timelines: Sequence[Timeline], members: list[int], *, beyond: int) -> list[list[int]]:
    """Members that agree with one another beyond a step; an ultrametric makes that an equivalence."""
    groups: list[list[int]] = []
    for member in members:
        for group in groups:
            if agree_until(timelines[group[0]], timelines[member]) > beyond:
                group.append(member)
                break
        else:
            groups.append([member])
    return groups


def _step(origin: Origin | None) -> int:
    return 0 if origin is None else origin.step
