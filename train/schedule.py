"""Learning rate and clipping as functions of the step and the stage."""

from dataclasses import dataclass

from train.micro_batches import MicroBatchLimits


@dataclass(frozen=True, slots=True)
class StageTraining:
    """Optimisation settings of one stage.

    Attributes:
        learning_rate: The peak.
        warmup_steps: Steps until it is reached.
        max_grad_norm: Bound on the global 2-norm of a gradient.
        micro_batches: How large a micro-batch may be.
        max_length: Tokens of a row in context; a longer one is trained alone. None: as it was prepared.
    """

    learning_rate: float
    warmup_steps: int
    max_grad_norm: float
    micro_batches: MicroBatchLimits
    max_length: int | None = None


def learning_rate(
    stage: StageTraining, *, step: int, stage_start_step: int, total_steps: int, final_lr_ratio: float
) -> float:
    """Rate at `step`: linear warm-up from the stage's first step, under a linear decay over the whole run."""
    warmup = min(1.0, (step - stage_start_step + 1) / (stage.warmup_steps + 1))
    decay = 1.0 - (1.0 - final_lr_ratio) * (step / total_steps)
    return stage.learning_rate * warmup * decay
