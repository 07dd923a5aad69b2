"""How far a preparation is, for whoever wants to show it."""

from typing import Protocol


class Progress(Protocol):
    """Told how far a phase is, from 0 on. A phase ends when `done` reaches `total`, or when another begins."""

    def update(self, phase: str, *, done: int, total: int, unit: str) -> None:
        """`done` of `total` `unit` (bytes or rows) of the phase are done."""
        ...


class NoProgress:
    """Shows nothing."""

    def update(self, phase: str, *, done: int, total: int, unit: str) -> None:
        """Ignore it."""
