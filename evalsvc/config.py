"""Settings of the judgement."""

from pathlib import Path

from pydantic import Field

from scheduler.config_model import ConfigModel


class EvaluationConfig(ConfigModel):
    """How a snapshot is measured.

    Every probe is scored once by the task's checker. On the first `sampled_probes` of them, `samples_per_probe` answers
    are sampled at `temperature`: their scores give the output variance, and the automatic reviewer reads them all.
    """

    sampled_probes: int = Field(default=4, ge=1)
    samples_per_probe: int = Field(default=2, ge=2)
    temperature: float = Field(default=0.7, gt=0)
    max_new_tokens: int = Field(default=64, ge=1)
    batch_size: int = Field(default=64, ge=1)
    human_verdicts: Path | None = None
