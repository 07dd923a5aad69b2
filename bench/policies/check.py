"""The aims, fixed before the runs were made, and which of them are missed.

1  heat's worst-task accuracy is above that of the best simple static mixture, of the random walk and of its own
   mean weights held static, on at least two real suites, each by an interval that excludes zero
2  heat's macro accuracy is below uniform's on no suite by an interval that excludes zero
3  a task of random labels is fed at most twice its floor after it is recognised; it is recognised in most runs
"""

from collections.abc import Sequence

from bench.policies import worlds
from bench.policies.arms import CONTROLS, HEAT
from bench.policies.summary import UNIFORM, Difference, SuiteSummary

MIN_REAL_SUITES = 2
MAX_FED_FLOORS = 2.0
MIN_RECOGNISED = 0.5
_TOO_FEW = 2


def missed_aims(summaries: Sequence[SuiteSummary]) -> list[str]:
    """Every miss in one sentence."""
    missed: list[str] = []
    real = [summary for summary in summaries if summary.suite != worlds.NAME]
    beaten = 0
    for summary in real:
        lacking = list(_not_beaten(summary))
        beaten += not lacking
        missed += [f"{summary.suite}: worst task, heat against {what}" for what in lacking]
    if beaten < MIN_REAL_SUITES:
        missed.append(f"heat's worst task is above all three references on {beaten} real suites, aim {MIN_REAL_SUITES}")
    for summary in summaries:
        missed += _macro_losses(summary)
        missed += _random_labels(summary)
    return missed


def _not_beaten(summary: SuiteSummary) -> Sequence[str]:
    beside = summary.heat_beside["worst"]
    wanted = (summary.best_simple["worst"], *CONTROLS)
    found = [(name, beside.get(name)) for name in wanted]
    return [
        f"{name}: {'not run' if difference is None else in_words(difference)}"
        for name, difference in found
        if difference is None or not difference.above_zero
    ]


def _macro_losses(summary: SuiteSummary) -> list[str]:
    heat = next((arm for arm in summary.arms if arm.name == HEAT), None)
    if heat is None:
        return [f"{summary.suite}: heat was not run"]
    difference = heat.to_uniform["macro"]
    return [f"{summary.suite}: macro, heat against {UNIFORM}: {in_words(difference)}"] if difference.below_zero else []


def _random_labels(summary: SuiteSummary) -> list[str]:
    found = summary.recognition
    if found is None:
        return []
    if found.num_recognised < MIN_RECOGNISED * found.num_runs:
        return [f"{summary.suite}: random labels recognised in {found.num_recognised} of {found.num_runs} runs"]
    if found.share_after is not None and found.share_after > MAX_FED_FLOORS * found.floor:
        fed = found.share_after / found.floor
        return [f"{summary.suite}: random labels are fed {fed:.1f} times their floor after they are recognised"]
    return []


def in_words(difference: Difference) -> str:
    """`+1.2 points [-0.3, 2.5]`; of two seeds, Student's interval is many times their spread: left out."""
    points = f"{100 * difference.mean:+.1f} points"
    if difference.interval is None or difference.num_seeds <= _TOO_FEW:
        return f"{points}, {'one seed' if difference.num_seeds == 1 else 'two seeds'}"
    low, high = difference.interval
    return f"{points} [{100 * low:+.1f}, {100 * high:+.1f}]"
