"""Mixture policies against each other at equal compute, with paired seeds, controls and corrected tests.

    python -m bench.policies [--suite NAME] [--seeds N] [--arms A,B] [--jobs 2] [--quick] [--check]

Suites: S0, symbols, finrisk, smollm2; `--suite` may be repeated, without it all run. Every run is kept as a line: those
of the real suites, which take minutes each, in the project under `bench/policies/outcomes`, so that seeds add up over
time; others under `bench/results/policies`. Called again, the benchmark goes on where it was interrupted, and runs
again what the engine would decide otherwise now (`bench.policies.runs.key_of`). At the end it prints a table a suite
and writes its part of docs/benchmarks.md from all results there are, unless that would drop a suite which stands there
and has no results here (those of S0 are not in the project; they take minutes). `--quick` (S0 alone unless suites are
named, few seeds, short runs) is kept apart and leaves the page alone. `--check` exits 1 and names every aim that is
missed (`bench.policies.check`).

What this does not do: tune a learning rate an arm, or test a model larger than 135 million parameters.
"""

import argparse
import sys
from collections.abc import Sequence

from bench.policies import page, worlds
from bench.policies.arms import ARMS, CONTROLS, HEAT, SIMPLE_STATICS
from bench.policies.check import missed_aims
from bench.policies.outcome import Outcome, ResultsFile
from bench.policies.runs import OUTCOMES, RUNS, decisions_of
from bench.policies.schedule import Campaign
from bench.policies.suites import REAL_SUITES
from bench.policies.summary import UNIFORM, SuiteSummary, summarise

SUITES = (worlds.NAME, *REAL_SUITES)
WORDS = {worlds.NAME: worlds.WORDS} | {name: suite.words for name, suite in REAL_SUITES.items()}
_WORLDS, _QUICK_WORLDS = 1000, 20
_QUICK_ARMS = (*SIMPLE_STATICS, HEAT, *CONTROLS)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print, write, check; returns the exit status."""
    options = _parser().parse_args(arguments)
    chosen = options.suite or ([worlds.NAME] if options.quick else list(SUITES))
    absent = {suite: reason for suite in chosen if suite in REAL_SUITES and (reason := REAL_SUITES[suite].make())}
    outcomes: dict[str, list[Outcome]] = {}
    for suite in chosen if options.quick else SUITES:
        if suite in chosen and suite not in absent:
            campaign = _campaign(suite, arms=options.arms, seeds=options.seeds, quick=options.quick)
            campaign.run(num_processes=options.jobs)
        outcomes[suite] = _all_outcomes(suite, at_least_seeds=options.seeds or 1, quick=options.quick)
    summaries = [summarise(suite, found) for suite, found in outcomes.items() if _can_be_shown(found)]
    for summary in summaries:
        _show(summary)
    missed = missed_aims(summaries)
    for suite, reason in absent.items():
        print(f"{suite}: absent: {reason}")
    absent = {suite: reason for suite, reason in absent.items() if not outcomes[suite]}
    for line in missed:
        print(f"missed: {line}")
    if not options.quick:
        decisions = decisions_of(HEAT)[:12]
        part = page.page_part(summaries, words=WORDS, absent=absent, missed=missed, decisions=decisions)
        print(page.write(part))
    return int(options.check and bool(missed))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench.policies", description="mixture policies at equal compute")
    parser.add_argument("--suite", action="append", choices=SUITES, help="only this one; may be repeated")
    parser.add_argument("--seeds", type=int, help="paired seeds; default: the suite's own number")
    parser.add_argument("--arms", type=_arm_names, default=None, help=f"comma-separated; of {', '.join(ARMS)}")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, one thread each")
    parser.add_argument("--quick", action="store_true", help="S0 with few seeds: a minute or less; the page stays")
    parser.add_argument("--check", action="store_true", help="exit 1 and name every aim that is missed")
    return parser


def _arm_names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = sorted(set(names) - ARMS.keys())
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown} are no arms; the arms are {', '.join(ARMS)}")
    return (UNIFORM, *(name for name in names if name != UNIFORM))


def _campaign(suite: str, *, arms: Sequence[str] | None, seeds: int | None, quick: bool) -> Campaign:
    arms = arms or (_QUICK_ARMS if quick else tuple(ARMS))
    name = f"{suite}-quick" if quick else suite
    folder = OUTCOMES if suite in REAL_SUITES and not quick else RUNS
    return Campaign(
        suite,
        ResultsFile(folder / f"{name}.jsonl"),
        arms=arms,
        seeds=range(seeds or _usual_seeds(suite, quick=quick)),
        quick=quick,
    )


def _usual_seeds(suite: str, *, quick: bool) -> int:
    if suite == worlds.NAME:
        return _QUICK_WORLDS if quick else _WORLDS
    return 1 if quick else REAL_SUITES[suite].seeds


def _all_outcomes(suite: str, *, at_least_seeds: int, quick: bool) -> list[Outcome]:
    """All that hold of the suite, of whichever call."""
    seeds = max(at_least_seeds, _usual_seeds(suite, quick=quick))
    return _campaign(suite, arms=tuple(ARMS), seeds=seeds, quick=quick).outcomes()


def _can_be_shown(outcomes: Sequence[Outcome]) -> bool:
    return any(one.arm == UNIFORM for one in outcomes)


def _show(summary: SuiteSummary) -> None:
    print(f"\n{summary.suite}: {len(summary.seeds)} seeds")
    for line in (*page.arm_table(summary), "", *page.beside_table(summary)):
        print(line)


if __name__ == "__main__":
    sys.exit(main())
