"""Run configurations that load without any file being read."""

from typing import Any

from cluster.config import RunConfig


def run_config(**sections: Any) -> RunConfig:
    """Two stages, 100 steps, a boundary every ten."""
    base: dict[str, Any] = {
        "model": {"type": "tiny"},
        "data": ["a.jsonl", "b.jsonl", "c.jsonl"],
        "train": {"steps": 100, "global_batch_size": 6, "micro_batch_size": 3},
        "mixture": {"interval_steps": 10},
        "stages": [{"name": "one", "until": {"type": "step", "step": 50}}, {"name": "two"}],
    }
    for name, values in sections.items():
        base[name] = {**base[name], **values} if isinstance(base.get(name), dict) else values
    return RunConfig.model_validate(base)


def stages(until: dict[str, Any] | None, *, first: dict[str, Any] | None = None, **second: Any) -> list[dict[str, Any]]:
    """Two stages; one if `until` is None."""
    one = {"name": "one", **(first or {})}
    return [one] if until is None else [{**one, "until": until}, {"name": "two", **second}]
