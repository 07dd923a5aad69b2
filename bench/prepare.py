"""Rows per second, memory and time to reopen of a preparation.

    python -m bench.prepare [--quick] [--check] [--workers N]

Writes a corpus (three tasks, a task column, about 300 characters a row) and prepares it in a child process: read,
verify, deduplicate, split, train a tokenizer, tokenise, sort, write. The child and its workers are watched from here:
memory is the greatest sum of their proportional set sizes (PSS: a page that processes share counts once), sampled five
times a second. Another child does the same again, which must find the work done, and opens the store and a stream over
it.

The corpus is a million rows, with `--quick` a hundred thousand. `--check` exits 1 and names every figure over its aim;
the aims are those of the million rows.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil

from bench.ending import conclude

NUM_ROWS, NUM_QUICK_ROWS = 1_000_000, 100_000
MAX_MEMORY_BYTES, MAX_OPEN_S, MAX_RERUN_S = 2 << 30, 1.0, 1.5
SAMPLE_S = 0.2
_TASKS = ("summary", "extraction", "judgement")
_WORDS = [f"{start}{middle}{end}" for start in "bcdfg" for middle in ("ela", "oru", "ini", "atu") for end in "nrstlm"]


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured; `rerun_s` and `open_s` without the start of the process."""

    num_rows: int
    num_workers: int
    corpus_bytes: int
    wall_s: float
    cpu_s: float
    rows_per_s: float
    peak_pss_bytes: int
    peak_rss_bytes: int
    rerun_s: float
    open_s: float


def write_corpus(path: Path, num_rows: int) -> None:
    """JSONL of distinct rows, in an order that mixes the tasks."""
    rng = np.random.default_rng(0)
    with path.open("w", encoding="utf-8") as file:
        for start in range(0, num_rows, 10_000):
            words = rng.integers(len(_WORDS), size=(10_000, 40))
            for row, chosen in enumerate(words[: num_rows - start], start=start):
                text = " ".join(_WORDS[word] for word in chosen.tolist())
                record = {"task": _TASKS[row % 3], "instruction": f"{row}: {text[:170]}", "output": text[170:]}
                file.write(json.dumps(record) + "\n")


def child(corpus: Path, out: Path, num_workers: int) -> None:
    """Prepare, open, and print the times of both."""
    from cluster.data import TrainedTokenizer
    from train.config import DataConfig
    from train.data.prepare import prepare
    from train.data.preparing.execute import LocalExecutor
    from train.data.store import TokenStore
    from train.stream.mixture import MixtureStream

    source = {"path": str(corpus), "task_column": "task"}
    config = DataConfig.model_validate({"sources": [source], "max_length": 1024})
    with LocalExecutor(num_workers) as executor:
        start = time.perf_counter()
        prepared = prepare(
            config,
            specs={},
            tokenizer_source=TrainedTokenizer(vocab_size=1024),
            chat_template="auto",
            out_dir=out,
            seed=0,
            executor=executor,
        )
        prepare_s = time.perf_counter() - start
    start = time.perf_counter()
    store = TokenStore.open(prepared.store_path)
    num_tasks = len(store.task_names)
    stream = MixtureStream(num_rows=[store.num_rows(task) for task in range(num_tasks)], batch_size=16, seed=0)
    stream.set_weights(np.full(num_tasks, 1 / num_tasks))
    batch = stream.next_batch()
    for task, row in zip(batch.tasks.tolist(), batch.rows.tolist(), strict=True):
        store.encoded(task, row)
    print(json.dumps({"prepare_s": prepare_s, "open_s": time.perf_counter() - start}))


@dataclass(slots=True)
class Watched:
    """A child's output, and the most memory and CPU time seen of it and its own children."""

    output: dict[str, float]
    wall_s: float
    cpu_s: float
    peak_pss: int
    peak_rss: int


def watch(arguments: list[str]) -> Watched:
    """Run this module as a child and watch its process tree."""
    start, peak_pss, peak_rss = time.perf_counter(), 0, 0
    cpu_s: dict[int, float] = {}
    command = [sys.executable, "-m", "bench.prepare", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        root = psutil.Process(process.pid)
        while process.poll() is None:
            pss = rss = 0
            for one in _tree(root):
                try:
                    memory = one.memory_full_info()
                    times = one.cpu_times()
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue
                pss, rss = pss + memory.pss, rss + memory.rss
                cpu_s[one.pid] = times.user + times.system
            peak_pss, peak_rss = max(peak_pss, pss), max(peak_rss, rss)
            time.sleep(SAMPLE_S)
        output = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise SystemExit(f"the child failed with exit code {process.returncode}")
    wall_s = time.perf_counter() - start
    return Watched(json.loads(output.splitlines()[-1]), wall_s, sum(cpu_s.values()), peak_pss, peak_rss)


def _tree(root: psutil.Process) -> list[psutil.Process]:
    try:
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def measure(num_rows: int, num_workers: int) -> Figures:
    """Both children, over a fresh corpus."""
    with tempfile.TemporaryDirectory() as folder:
        corpus, out = Path(folder) / "corpus.jsonl", Path(folder) / "prepared"
        write_corpus(corpus, num_rows)
        arguments = ["--child", str(corpus), str(out), "--workers", str(num_workers)]
        first, again = watch(arguments), watch(arguments)
        return Figures(
            num_rows=num_rows,
            num_workers=num_workers,
            corpus_bytes=corpus.stat().st_size,
            wall_s=first.output["prepare_s"],
            cpu_s=first.cpu_s,
            rows_per_s=num_rows / first.output["prepare_s"],
            peak_pss_bytes=first.peak_pss,
            peak_rss_bytes=first.peak_rss,
            rerun_s=again.output["prepare_s"],
            open_s=again.output["open_s"],
        )


def over_aim(figures: Figures) -> list[str]:
    """Every figure that misses its aim, in words."""
    return [
        f"{name} {value:,.3g} is over {limit:,.3g}"
        for name, value, limit in (
            ("peak_pss_bytes", figures.peak_pss_bytes, MAX_MEMORY_BYTES),
            ("open_s", figures.open_s, MAX_OPEN_S),
            ("rerun_s", figures.rerun_s, MAX_RERUN_S),
        )
        if value > limit
    ]


def main() -> int:
    """Measure, print, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a hundred thousand rows")
    parser.add_argument("--check", action="store_true", help="exit 1 when a figure is over its aim")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        corpus, out = arguments.child
        child(corpus, out, arguments.workers)
        return 0
    figures = measure(NUM_QUICK_ROWS if arguments.quick else NUM_ROWS, arguments.workers)
    print(f"{figures.num_rows:,} rows, {figures.corpus_bytes / 1e6:,.0f} MB, {figures.num_workers} workers")
    print(f"prepare   {figures.wall_s:8.1f} s   {figures.rows_per_s:,.0f} rows/s   {figures.cpu_s:,.0f} CPU-s")
    print(f"memory    {figures.peak_pss_bytes / 2**20:8,.0f} MiB PSS   {figures.peak_rss_bytes / 2**20:,.0f} MiB RSS")
    print(f"again     {figures.rerun_s:8.2f} s")
    print(f"open      {figures.open_s:8.3f} s   store, stream, and a first batch")
    return conclude("prepare", asdict(figures), over_aim(figures), check=arguments.check)


if __name__ == "__main__":
    sys.exit(main())
