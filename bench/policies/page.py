"""The part of docs/benchmarks.md that this benchmark writes, between its markers; all else on the page stays."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.policies.arms import ARMS, DIRICHLET, PROBES_READ
from bench.policies.check import in_words
from bench.policies.summary import METRICS, UNIFORM, ArmSummary, Difference, Recognition, SuiteSummary

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- policies: begin -->", "<!-- policies: end -->"
_SUITE = "### Suite "
_HEADER = "# Benchmarks\n\nEvery part names the command that makes it again.\n"
_TITLE = "## Mixture policies"
_ABOUT = """\
Arms that differ in nothing but the mixture, at equal compute: an arm that is steered by probes has fewer steps, by what
its probes cost (a forward pass counts a third of a trained token); static mixtures and controls read none. All arms of
a seed share rows, initial weights and the order of rows; the learning rate is the same for all, no grid was searched.
Policies read the probe rows, {probes} of a task at each evaluation unless the arm says otherwise; arms are chosen by
the selection rows, the scores are those of the test rows, read once. Random-label tasks are in no score.

*random-walk* moves as far as heat at each update, at random; *time-average* holds heat's mean weights from the start:
an adaptive policy has shown something only where it beats both. *best of 8 Dirichlet* chooses in each seed, by the
selection rows, among eight runs, and so costs eight times the others.

Intervals are those of paired differences at 95 % (Student's below 30 seeds, percentile bootstrap from there on); p is a
sign-flip test after Holm over the column.
*to target*: compute until uniform's final selection score was reached, 100 % where it never was (restricted mean), and
in how many runs it was. *regret*: what the best of the four simple and eight Dirichlet mixtures has more, in hindsight.
"""
_SHARED = "Not run, since they serve the same rows in the same order as another arm, whose run is theirs too:"


def page_part(
    summaries: Sequence[SuiteSummary],
    *,
    words: Mapping[str, str],
    absent: Mapping[str, str],
    missed: Sequence[str],
    decisions: str,
) -> str:
    """The part's text, without its markers.

    Args:
        summaries: Of every suite that has results.
        words: What each suite is.
        absent: Why a suite has none.
        missed: Aims that were missed.
        decisions: Hash of what the engine decides under the heat policy (`bench.policies.runs.decisions_of`).
    """
    lines = [_TITLE, "", _ABOUT.format(probes=PROBES_READ), f"Engine: decisions {decisions}.", ""]
    lines += ["Aims missed:" if missed else "No aim is missed.", "", *(f"- {line}" for line in missed), ""]
    lines += ["Arms:", "", *arms_words(), ""]
    for summary in summaries:
        lines += _suite(summary, words[summary.suite])
    lines += [f"- Suite {name}: absent: {reason}." for name, reason in absent.items()]
    return "\n".join(lines).rstrip() + "\n"


def renewed(page: str, part: str) -> str:
    """`page` with our part replaced, or appended where it has none."""
    block = f"{BEGIN}\n{part}{END}\n"
    if BEGIN not in page:
        return f"{page or _HEADER}\n{block}"
    head, _, rest = page.partition(BEGIN)
    return head + block + rest.partition(f"{END}\n")[2]


def write(part: str) -> str:
    """Write it into the page, unless a suite that stands there would be lost: its runs are elsewhere, or gone.

    Returns:
        What was done, in words.
    """
    page = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""
    if lost := suites_lost(page, part):
        calls = " and ".join(f"`python -m bench.policies --suite {name}`" for name in lost)
        return f"{PAGE} stays: it shows {', '.join(lost)}, of which no run is kept here; call {calls} first"
    PAGE.write_text(renewed(page, part), encoding="utf-8")
    return f"written to {PAGE}"


def suites_lost(page: str, part: str) -> list[str]:
    """Suites with a section in the page and none in the part."""
    before, after = (re.findall(rf"^{_SUITE}(\S+)$", text, re.MULTILINE) for text in (page, part))
    return [name for name in before if name not in after]


def _suite(summary: SuiteSummary, words: str) -> list[str]:
    seeds = f"{len(summary.seeds):,} seeds" if len(summary.seeds) > 1 else "one seed"
    costs = [arm.cpu_s for arm in summary.arms if arm.cpu_s is not None]
    mean_s = sum(costs) / len(costs)
    return [
        f"{_SUITE}{summary.suite}",
        "",
        f"{words[0].upper()}{words[1:]}. {seeds[0].upper()}{seeds[1:]}, "
        f"{f'{mean_s:.2g}' if mean_s < 100 else f'{mean_s:,.0f}'} CPU-seconds a run.",
        "",
        "```bash",
        f"python -m bench.policies --suite {summary.suite} --seeds {len(summary.seeds)}",
        "```",
        "",
        *arm_table(summary),
        "",
        "Heat beside what it must beat, in points:",
        "",
        *beside_table(summary),
        "",
        *([_recognition(summary.recognition), ""] if summary.recognition else []),
        *_shared_runs(summary),
    ]


def arm_table(summary: SuiteSummary) -> list[str]:
    """A row an arm."""
    columns = ("arm", "seeds", "macro", "worst", "macro − uniform", "p", "worst − uniform", "p", "to target")
    more = ("regret macro / worst", "move", "random labels", "probes", "compute")
    lines = ["| " + " | ".join((*columns, *more)) + " |", "|" + "---|" * (len(columns) + len(more))]
    return lines + ["| " + " | ".join(_cells(arm)) + " |" for arm in summary.arms]


def _cells(arm: ArmSummary) -> list[str]:
    beside = [
        cell for metric in METRICS for cell in _difference(arm.to_uniform.get(metric), is_uniform=arm.name == UNIFORM)
    ]
    target = "" if arm.to_target is None else f"{arm.to_target:.0%} ({arm.num_reached})"
    return [
        arm.name,
        str(arm.num_seeds),
        f"{arm.macro:.3f}",
        f"{arm.worst:.3f}",
        *beside,
        target,
        f"{100 * arm.regret['macro']:.1f} / {100 * arm.regret['worst']:.1f}",
        _ratio(arm.move, digits=3),
        "" if arm.random_share is None else f"{arm.random_share:.1%}",
        "" if arm.probe_ratio is None else f"{arm.probe_ratio:.1%}",
        "" if arm.compute_ratio is None else f"{arm.compute_ratio:.0%}",
    ]


def _difference(found: Difference | None, *, is_uniform: bool) -> tuple[str, str]:
    if is_uniform or found is None:
        return "", ""
    return in_words(found).replace(" points", ""), _p(found.p)


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _ratio(value: float | None, *, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def beside_table(summary: SuiteSummary) -> list[str]:
    """A row a reference and metric."""
    lines = ["| against | metric | heat has more | p | verdict |", "|---|---|---|---|---|"]
    for metric, found in summary.heat_beside.items():
        for name, difference in found.items():
            verdict = "better" if difference.above_zero else "worse" if difference.below_zero else "no difference shown"
            lines.append(f"| {name} | {metric} | {in_words(difference)} | {_p(difference.p)} | {verdict} |")
    return lines


def _shared_runs(summary: SuiteSummary) -> list[str]:
    """Arms that were not run because another's run is theirs, a line each."""
    shared = [
        f"- {arm.name}: {'its run is' if count == arm.num_seeds == 1 else f'{count} of its runs are'} that of {other}."
        for arm in summary.arms
        for other, count in arm.run_of.items()
    ]
    return [_SHARED, "", *shared, ""] if shared else []


def _recognition(found: Recognition) -> str:
    if found.at is None:
        return f"The task of random labels was recognised in none of {found.num_runs} runs."
    after = ""
    if found.share_after is not None:
        times = f"{found.share_after / found.floor:.1f} times its floor of {found.floor:.1%}"
        after = f"; from then on it was fed {found.share_after:.1%}, {times} (at most {found.most_after:.1f} times)"
    return (
        f"The task of random labels was recognised in {found.num_recognised} of {found.num_runs} runs, after "
        f"{found.at:.0%} of the run on average{after}."
    )


def arms_words() -> list[str]:
    """What each arm is that its name does not say, a line each."""
    drawn = {arm.name for arm in DIRICHLET}
    return [f"- {name}: {arm.words}" for name, arm in ARMS.items() if name not in drawn]
