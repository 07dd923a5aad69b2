"""Each component of heat by numbers worked out by hand, and what may not raise it."""

from typing import Any

import numpy as np
import pytest

from scheduler.arrays import packed, unpacked
from scheduler.errors import StateError
from scheduler.heat import HeatTracker
from scheduler.setup import HeatConfig
from scheduler.signals import TaskSignal
from tests.unit.scheduler.made import evaluation, signal

ONLY_GAP = HeatConfig(decay_weight=0, variance_weight=0, rejection_weight=0, gap_weight=1)


def tracker(num_tasks: int = 1, config: HeatConfig | None = None, *, target: float = 0.8) -> HeatTracker:
    return HeatTracker(
        config=config or HeatConfig(),
        target_scores=np.full(num_tasks, target),
        base_samples=np.full(num_tasks, 10_000.0),
    )


def feed(heat: HeatTracker, *signals: TaskSignal | None, served: float = 0.0) -> None:
    heat.update(evaluation(*signals), step=0, served=np.full(len(signals), served), overfit_tolerance=0.1)


def scores(heat: HeatTracker, values: list[float], **fields: Any) -> None:
    for value in values:
        feed(heat, signal(score=value, **fields))


def test_the_gap_is_the_shortfall_as_a_share_of_the_target() -> None:
    heat = tracker(target=0.8)
    feed(heat, signal(score=0.6))
    assert heat.state.gap[0] == pytest.approx(0.25)


def test_a_score_above_the_target_leaves_no_gap() -> None:
    heat = tracker(target=0.8)
    feed(heat, signal(score=1.0))
    assert heat.state.gap[0] == 0.0


def test_the_variance_component_is_the_squashed_coefficient_of_variation() -> None:
    heat = tracker()
    feed(heat, signal(sampled_score=0.5, score_variance=0.09))
    assert heat.state.variance[0] == pytest.approx(0.6 / 1.6)


def test_a_task_that_never_scores_has_a_finite_variance_component() -> None:
    heat = tracker()
    feed(heat, signal(score=0.0, sampled_score=0.0, score_variance=0.0))
    assert heat.state.variance[0] == 0.0


def test_the_rejection_rate_is_shrunk_to_the_rate_of_all_tasks() -> None:
    heat = tracker(2)
    feed(heat, signal(num_rejected=6, num_reviewed=8), signal(num_rejected=2, num_reviewed=24))
    pooled = 8 / 32
    assert heat.state.rejection.tolist() == pytest.approx([(6 + 8 * pooled) / (8 + 8), (2 + 8 * pooled) / (24 + 8)])


def test_a_verdict_of_a_person_counts_as_several_of_the_reviewer() -> None:
    heat = tracker()
    feed(heat, signal(num_rejected=0, num_reviewed=10, num_human_rejected=2, num_human_reviewed=2))
    assert heat.state.rejection[0] == pytest.approx(10 / 20)


def test_what_people_rejected_long_ago_counts_for_less_and_what_they_reject_now_counts_in_full() -> None:
    heat = tracker(2, config=HeatConfig(human_half_life_evaluations=2.0))
    quiet = signal("b", num_rejected=0, num_reviewed=16)
    rates = []
    for told in (20, 20, 20, 20, 20, 40):
        feed(heat, signal(num_rejected=0, num_reviewed=16, num_human_rejected=told, num_human_reviewed=told), quiet)
        rates.append(float(heat.state.rejection[0]))
        if len(rates) == 1:
            assert heat.state.people_rejected[0] == 20
    assert heat.state.people_rejected[0] == pytest.approx(20 + 20 * 0.5**2.5)
    assert rates[:5] == sorted(rates[:5], reverse=True)
    assert rates[4] < rates[0] - 0.1
    assert rates[5] > rates[0]


def test_verdicts_age_while_a_task_is_not_measured() -> None:
    heat = tracker(2, config=HeatConfig(human_half_life_evaluations=1.0))
    feed(heat, signal(num_human_rejected=8, num_human_reviewed=8), signal())
    feed(heat, None, signal())
    feed(heat, signal(num_human_rejected=8, num_human_reviewed=8), signal())
    assert heat.state.people_rejected[0] == pytest.approx(2.0)


def test_without_any_review_nothing_is_rejected() -> None:
    heat = tracker()
    feed(heat, signal(num_rejected=0, num_reviewed=0))
    assert heat.state.rejection[0] == 0.0


def test_heat_is_the_weighted_mean_of_its_components() -> None:
    heat = tracker(config=HeatConfig(decay_weight=0, variance_weight=1, rejection_weight=0, gap_weight=3), target=0.8)
    feed(heat, signal(score=0.6, sampled_score=0.5, score_variance=0.09))
    assert heat.state.heat[0] == pytest.approx((0.375 + 3 * 0.25) / 4)


def test_heat_follows_with_its_half_life() -> None:
    heat = tracker(config=ONLY_GAP.model_copy(update={"half_life_evaluations": 2.0}), target=1.0)
    feed(heat, signal(score=0.0, num_probes=10**9))
    before = heat.state.heat[0]
    feed(heat, signal(score=1.0, num_probes=10**9))
    assert heat.state.heat[0] == pytest.approx(0.5**0.5 * before, abs=1e-6)


def test_a_fall_that_the_probes_cannot_tell_from_noise_is_no_decay() -> None:
    heat = tracker()
    scores(heat, [0.6, 0.6, 0.6, 0.55], num_probes=16)
    assert heat.state.decay[0] == 0.0


def test_the_same_fall_on_many_probes_is_decay() -> None:
    heat = tracker()
    scores(heat, [0.6, 0.6, 0.6, 0.55], num_probes=20_000)
    assert heat.state.decay[0] > 0.05


def test_a_steep_fall_is_full_decay_within_three_evaluations() -> None:
    heat = tracker()
    scores(heat, [0.9] * 6 + [0.6, 0.3, 0.1])
    assert heat.state.decay[0] == 1.0


@pytest.mark.parametrize("num_probes", [16, 64, 256, 1024])
@pytest.mark.parametrize("rise", [[0.0, 0.2, 0.4, 0.6], [0.0, 0.45, 0.9]])
def test_a_task_that_rises_and_then_rests_does_not_decay(rise: list[float], num_probes: int) -> None:
    """The trend overshoots where a rise ends; no score was ever that high."""
    heat = tracker()
    decays = []
    for value in [*rise, *[rise[-1]] * 20]:
        feed(heat, signal(score=value, num_probes=num_probes))
        decays.append(heat.state.decay[0])
    assert max(decays) == 0.0


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_a_steady_task_under_probe_noise_hardly_ever_decays(rate: float) -> None:
    num_tasks, rng = 100, np.random.default_rng(0)
    heat = tracker(num_tasks)
    decays = []
    for _ in range(60):
        feed(heat, *[signal(score=rng.binomial(64, rate) / 64) for _ in range(num_tasks)])
        decays.append(heat.state.decay.copy())
    assert np.mean(decays) < 0.03


def test_missing_evaluations_make_up_no_evidence() -> None:
    heat = tracker(2)
    for value in (0.1, 0.3, 0.5):
        feed(heat, signal(score=value), signal(score=0.5))
    known = {name: getattr(heat.state, name)[0] for name in ("decay", "variance", "rejection", "gap", "best_level")}
    for _ in range(10):
        feed(heat, None, signal(score=0.5, num_rejected=16))
    assert {name: getattr(heat.state, name)[0] for name in known} == known


def test_a_task_that_comes_back_unchanged_after_a_gap_has_not_decayed() -> None:
    heat = tracker(2)
    for value in (0.1, 0.3, 0.5):
        feed(heat, signal(score=value), signal())
    for _ in range(10):
        feed(heat, None, signal())
    feed(heat, signal(score=0.5), signal())
    assert heat.state.decay[0] == 0.0


def test_stale_heat_fades_to_the_mean_of_the_measured_tasks() -> None:
    heat = tracker(2, ONLY_GAP.model_copy(update={"stale_half_life_evaluations": 2.0}), target=1.0)
    feed(heat, signal(score=0.0, num_probes=10**9), signal(score=0.8, num_probes=10**9))
    for _ in range(2):
        feed(heat, None, signal(score=0.8, num_probes=10**9))
    assert heat.state.heat.tolist() == pytest.approx([0.2 + 0.5 * (1.0 - 0.2), 0.2], abs=1e-6)


def test_an_evaluation_without_any_signal_changes_no_heat() -> None:
    heat = tracker(2)
    feed(heat, signal(score=0.2), signal(score=0.7))
    before = heat.state.heat.copy()
    feed(heat, None, None)
    assert heat.state.heat.tolist() == before.tolist()


def test_the_overfit_count_needs_a_worse_loss_and_no_better_score() -> None:
    heat = tracker()
    counts = []
    for loss, score in [(1.0, 0.5), (1.05, 0.5), (1.2, 0.5), (1.3, 0.5), (1.4, 0.9), (1.4, 0.9), (1.0, 0.9)]:
        feed(heat, signal(loss=loss, score=score))
        counts.append(int(heat.state.overfit[0]))
    assert counts == [0, 0, 1, 2, 0, 1, 0]


@pytest.mark.parametrize("loss", [0.0, 5e-324, 1e308])
def test_extreme_losses_and_counts_keep_the_memory_finite(loss: float) -> None:
    heat = tracker(config=HeatConfig(human_review_weight=1e6))
    for _ in range(3):
        feed(heat, signal(loss=loss, num_probes=2**53, num_human_reviewed=2**53, num_human_rejected=2**53))
        feed(heat, signal(loss=loss / 2, num_probes=1, score=1.0, sampled_score=5e-324, score_variance=1.0))
    state = heat.state_dict()
    memory = unpacked(state, dict.fromkeys(state, (1,)), what="heat")
    assert all(np.isfinite(values).all() for values in memory.values())


def test_state_goes_into_json_and_back_with_tasks_that_were_never_measured() -> None:
    heat, copy = tracker(2), tracker(2)
    feed(heat, signal(score=0.3), None)
    copy.load_state_dict(heat.state_dict())
    for one in (heat, copy):
        feed(one, signal(score=0.4), signal(score=0.1))
    assert copy.state_dict() == heat.state_dict()


def test_state_of_other_keys_or_another_number_of_tasks_is_refused() -> None:
    heat = tracker(2)
    with pytest.raises(StateError, match="keys"):
        heat.load_state_dict({**heat.state_dict(), "heat.more": packed(np.zeros(2))})
    with pytest.raises(StateError, match=r"no array of the shape \(2,\) of this run"):
        heat.load_state_dict(tracker(3).state_dict())
