"""What is left to run, in which order, and the processes that run it.

Each real run has a process of its own, forked from one that has loaded everything; of the simulator's suite it is a
batch of worlds. A control waits for the heat run that it follows. A run of one arm is that of every waiting arm whose
engine decided the same (`bench.policies.shadows`), and of a static arm that serves the same rows. Every outcome is
written down when it is there, so an interrupted benchmark goes on where it was.
"""

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace

from bench.policies import worlds
from bench.policies.arms import ARMS, CONTROLS, HEAT
from bench.policies.outcome import Outcome, ResultsFile
from bench.policies.runs import key_of, run_real, run_world

_WORLDS_A_JOB = 20


@dataclass(frozen=True, slots=True)
class Job:
    """Arms of some seeds that one process runs: one arm of one seed in a real suite.

    `besides`: arms that wait, whose run this one may turn out to be. `finished`: static arms of the seed.
    """

    seeds: tuple[int, ...]
    arms: tuple[str, ...]
    besides: tuple[str, ...] = ()
    finished: tuple[Outcome, ...] = ()


class Campaign:
    """All runs of one suite."""

    def __init__(
        self, suite: str, results: ResultsFile, *, arms: Sequence[str], seeds: Sequence[int], quick: bool
    ) -> None:
        self.suite, self.results, self.quick = suite, results, quick
        follows = {HEAT} if set(arms) & set(CONTROLS) else set()
        self.arms = tuple(sorted({*arms, *follows}, key=list(_in_order()).index))
        self.seeds = tuple(seeds)
        self._heat_keys = {seed: key_of(suite, HEAT, seed, quick=quick, heat=None) for seed in seeds}
        self.keys = {
            (arm, seed): key_of(suite, arm, seed, quick=quick, heat=self._heat_keys[seed])
            for seed in self.seeds
            for arm in self.arms
        }

    def outcomes(self) -> list[Outcome]:
        """Those that are there."""
        return [self.results.outcomes[key] for key in self.keys.values() if key in self.results.outcomes]

    def run(self, *, num_processes: int) -> None:
        """Run all that is missing."""
        jobs = self._jobs()
        for name, value in {
            "OMP_NUM_THREADS": "1",
            "OMP_WAIT_POLICY": "PASSIVE",
            "TOKENIZERS_PARALLELISM": "false",
        }.items():
            os.environ.setdefault(name, value)
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([run_real.__module__])
        with ProcessPoolExecutor(num_processes, mp_context=context, max_tasks_per_child=1) as pool:
            running: dict[Future[list[Outcome]], Job] = {}
            try:
                while jobs or running:
                    while len(running) < num_processes and (job := self._next(jobs)):
                        running[pool.submit(run_job, self.suite, job, self._heat_of(job), quick=self.quick)] = job
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        del running[future]
                        found = future.result()
                        jobs = [job for job in jobs if not _is_done(job, found)]
                        self._keep(found, num_left=len(jobs) + len(running))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _jobs(self) -> list[Job]:
        """Seed by seed, so that whenever it is interrupted the arms can be compared."""
        missing = {
            seed: tuple(arm for arm in self.arms if self.keys[arm, seed] not in self.results.outcomes)
            for seed in self.seeds
        }
        if self.suite != worlds.NAME:
            return [Job((seed,), (arm,)) for seed, arms in missing.items() for arm in arms]
        by_arms: dict[tuple[str, ...], list[int]] = {}
        for seed, arms in missing.items():
            if arms:
                by_arms.setdefault(arms, []).append(seed)
        return [
            Job(tuple(seeds[start : start + _WORLDS_A_JOB]), arms)
            for arms, seeds in by_arms.items()
            for start in range(0, len(seeds), _WORLDS_A_JOB)
        ]

    def _next(self, jobs: list[Job]) -> Job | None:
        """Take out the first job whose heat run, if it follows one, is there."""
        for place, job in enumerate(jobs):
            if self.suite == worlds.NAME:
                return jobs.pop(place)
            if not set(job.arms) & set(CONTROLS) or self._heat_of(job) is not None:
                del jobs[place]
                besides = (other.arms[0] for other in jobs if other.seeds == job.seeds)
                return replace(
                    job,
                    besides=tuple(arm for arm in besides if ARMS[arm].kind == "engine"),
                    finished=tuple(one for one in self.outcomes() if self._is_static_of(one, job.seeds[0])),
                )
        return None

    @staticmethod
    def _is_static_of(one: Outcome, seed: int) -> bool:
        return one.seed == seed and ARMS[one.arm].kind == "static"

    def _heat_of(self, job: Job) -> Outcome | None:
        return self.results.outcomes.get(self._heat_keys[job.seeds[0]])

    def _keep(self, outcomes: Sequence[Outcome], *, num_left: int) -> None:
        self.results.add({self.keys[one.arm, one.seed]: one for one in outcomes})
        last = outcomes[-1]
        what = (
            f"{', '.join(one.arm for one in outcomes)}, seed {last.seed}"
            if self.suite != worlds.NAME
            else f"{len(outcomes)} runs to seed {last.seed}"
        )
        cpu_s = sum(one.cpu_s for one in outcomes if one.run_of is None)
        print(
            f"{self.suite}: {what}: macro {last.macro:.3f}, worst {last.worst:.3f}, {cpu_s:.0f} CPU-s; {num_left} left",
            flush=True,
        )


def _is_done(job: Job, found: Sequence[Outcome]) -> bool:
    """Whether another job's run turned out to be this one's."""
    return any((one.arm,) == job.arms and (one.seed,) == job.seeds for one in found)


def _in_order() -> list[str]:
    """The heat arm first, its controls last."""
    return sorted(ARMS, key=lambda name: (name in CONTROLS, name != HEAT))


def run_job(suite: str, job: Job, heat: Outcome | None, *, quick: bool) -> list[Outcome]:
    """In a process of its own. A world's controls follow a heat run of the same call."""
    if suite != worlds.NAME:
        arm, seed = job.arms[0], job.seeds[0]
        return run_real(suite, arm, seed, heat=heat, quick=quick, besides=job.besides, finished=job.finished)
    follows = [HEAT] if HEAT not in job.arms and set(job.arms) & set(CONTROLS) else []
    outcomes = [one for seed in job.seeds for one in run_world(seed, [*follows, *job.arms])]
    return [one for one in outcomes if one.arm in job.arms]
