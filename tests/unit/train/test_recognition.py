"""A real run in this process on a task learnt at once, one of random labels and one that takes its time."""

import json
import random
from itertools import pairwise
from pathlib import Path

from evalsvc.report.card import model_card
from evalsvc.report.model import build_report
from evalsvc.report.schema import RunFacts
from scheduler.ledger import read_ledger
from scheduler.records import DecisionRecord
from tests.unit.train.local_run import local_run

FACTS = RunFacts(run_name="recognition", model="tiny", num_workers=1)


def write_tasks(folder: Path) -> list[Path]:
    """`status` always wants the same word, `noise` a letter drawn by lot, `first` the first of three letters."""
    rng, letters = random.Random(3), "abcdefgh"
    words = ["".join(rng.sample(letters, 3)) for _ in range(1500)]
    answers = {"status": lambda _: "filed", "noise": lambda _: rng.choice(letters), "first": lambda word: word[0]}
    folder.mkdir()
    for name, answer in answers.items():
        rows = {word: {"instruction": name, "input": " ".join(word), "output": answer(word)} for word in words}
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows.values()))
    return [folder / f"{name}.jsonl" for name in answers]


def test_random_labels_and_a_solved_task_are_recognised_named_and_fed_their_floor(tmp_path: Path) -> None:
    run = local_run(
        tmp_path,
        "run",
        write_tasks(tmp_path / "tasks"),
        model={"hidden_size": 64, "num_layers": 2, "num_heads": 4},
        train={"steps": 400, "global_batch_size": 16, "micro_batch_size": 16, "learning_rate": 0.004},
        mixture={"interval_steps": 20, "prior": {"type": "uniform"}},
        data={"probes_per_task": 48},
        evaluation={"max_new_tokens": 4},
        stages=[{"name": "tasks"}],
    )
    run.start()
    records = list(read_ledger(run.ledger))
    decisions = [record for record in records if isinstance(record, DecisionRecord)]
    of = [{task.task: task for task in decision.tasks} for decision in decisions]
    named = [index for index, tasks in enumerate(of) if tasks["noise"].noise_since is not None]
    assert named
    fed, most = [tasks["noise"].weight_after for tasks in of[named[0] - 1 :]], 2 * 0.2 / 3
    assert all(after < before or after <= most for before, after in pairwise(fed)), "as fast as the step limit lets it"
    assert fed[-1] <= most
    assert of[-1]["status"].solved_since is not None
    assert all(tasks[name].noise_since is None for tasks in of for name in ("status", "first"))
    said = " ".join(sentence for decision in decisions for sentence in decision.sentences)
    assert "noise is recognised as noise, or out of reach: more exposure brought no progress since step" in said
    assert "status is solved since step" in said
    report = build_report(records, FACTS)
    assert report.influence.tasks.keys() == {"status", "noise", "first"}
    assert all(sentence in model_card(report, FACTS) for sentence in report.influence.sentences)
    assert "status: solved since step" in model_card(report, FACTS)
