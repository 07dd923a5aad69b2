"""Other arms' engines, told all that a run's own engine is told, for as long as they decide the same.

What an arm's run would have been is known without running it where its engine has the same plans and asks for the same
probes all along: nothing else of its settings reaches the workers or the evaluation, so, evaluation by evaluation, it
would have been told the same. Heat without a part that never acts in a run is such an arm.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from scheduler.allocation import Allocation
from scheduler.keeper import HeatKeeper
from scheduler.plan import MixturePlan
from scheduler.setup import EngineSetup

Decided = tuple[MixturePlan, tuple[bool, ...]]
"""What of an engine's decisions reaches a run or its outcome: the latest plan, and for each task [K] whether it is held
for noise or out of reach."""


def decided_by(keeper: HeatKeeper) -> Decided:
    """How an engine stands after an evaluation."""
    engine = keeper.memory.engine
    return engine.plan, tuple(engine.heat.learnability.given_up.tolist())


class Shadows:
    """Engines of other arms, by name, with ledgers of their own below `folder`; one that differs is dropped."""

    def __init__(self, setups: Mapping[str, EngineSetup], folder: Path) -> None:
        self._keepers = {name: HeatKeeper.open(folder / f"{name}.jsonl", setup) for name, setup in setups.items()}

    @property
    def names(self) -> tuple[str, ...]:
        """Those that have decided the same so far."""
        return tuple(self._keepers)

    def tell(self, what: Callable[[HeatKeeper], object]) -> None:
        """Make a call of the run's own engine on each of them too."""
        for keeper in self._keepers.values():
            what(keeper)

    def require_probes(self, step: int, probes: Allocation) -> None:
        """Drop those that would have others evaluated at `step`."""
        self._keep(lambda keeper: keeper.probes_for(step) == probes)

    def require_decided(self, decided: Decided) -> None:
        """Drop those that stand elsewhere."""
        self._keep(lambda keeper: decided_by(keeper) == decided)

    def _keep(self, agrees: Callable[[HeatKeeper], bool]) -> None:
        self._keepers = {name: keeper for name, keeper in self._keepers.items() if agrees(keeper)}
