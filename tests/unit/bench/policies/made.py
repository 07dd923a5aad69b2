"""Outcomes described in a few words."""

from bench.policies.outcome import Outcome


def outcome(arm: str, seed: int, *, test: dict[str, float], suite: str = "symbols", **fields: object) -> Outcome:
    whole = {
        "num_steps": 100,
        "train_units": 1000.0,
        "probe_units": 0.0,
        "selection": test,
        "curve": [(0.0, 0.0), (500.0, 0.4), (1000.0, sum(test.values()) / len(test))],
        "mean_weights": dict.fromkeys(test, 1 / len(test)),
        "first_weights": dict.fromkeys(test, 1 / len(test)),
        "moves": [0.1],
        "random_share": None,
        "random_floor": None,
        "recognised_at": None,
        "random_share_after": None,
        "cpu_s": 1.0,
    }
    return Outcome(suite=suite, arm=arm, seed=seed, test=test, **{**whole, **fields})  # pyright: ignore[reportArgumentType]
