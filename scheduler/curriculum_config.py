"""Settings of the adaptive difficulty curriculum (`scheduler.curriculum` says how it moves)."""

from pydantic import Field, model_validator

from scheduler.config_model import ConfigModel


class CurriculumConfig(ConfigModel):
    """Every task climbs its difficulty levels as its probes say it may: low-mid, mid-high, high.

    A stage with a `difficulty` window of its own keeps that window while it lasts.

    Attributes:
        open_levels: Neighbouring levels trained at once; the window moves up by one level a promotion, to the hardest
            level alone.
        replay_ratio: Share of a task's samples that comes from the levels below its window.
        promote_at: A task is promoted when the Wilson lower bound of its accuracy on its open levels was above this in
            `promote_evaluations` evaluations in a row.
        promote_evaluations: Evaluations in a row that a promotion needs.
        demote_at: A task is demoted when the Wilson upper bound of that accuracy was below this in
            `demote_evaluations` evaluations in a row.
        demote_evaluations: Evaluations in a row that a demotion needs.
        confidence: One-sided, of each of the two bounds.
        rescore: After a promotion, put a level behind its neighbour where the model's own results say that it is the
            harder of the two.
        open_all_after: From this fraction of the run on, every task's window reaches up to its hardest level, promoted
            or not; null: never.
    """

    open_levels: int = Field(default=2, ge=1)
    replay_ratio: float = Field(default=0.2, ge=0, lt=1)
    promote_at: float = Field(default=0.7, gt=0, lt=1)
    promote_evaluations: int = Field(default=5, ge=1)
    demote_at: float = Field(default=0.3, ge=0, lt=1)
    demote_evaluations: int = Field(default=5, ge=1)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    rescore: bool = True
    open_all_after: float | None = Field(default=0.8, gt=0, le=1)

    @model_validator(mode="after")
    def _thresholds_are_apart(self) -> "CurriculumConfig":
        if self.demote_at >= self.promote_at:
            raise ValueError(
                f"demote_at {self.demote_at} is not below promote_at {self.promote_at}; a task between the two moves "
                "neither way, so leave room"
            )
        return self
