import dataclasses

import pytest
import yaml

from evalsvc.report.card import model_card
from evalsvc.report.model import build_report
from evalsvc.report.page import score_text
from evalsvc.report.schema import RowCounts, SourceFacts
from scheduler.setup import WeightUnit
from tests.unit.evalsvc.report.simulated_run import FACTS, TASKS, simulated_records

REPORT = build_report(simulated_records(), FACTS)
ADAPTER = dataclasses.replace(FACTS, base_model="org/base: 1", has_adapter=True)


def front_matter(card: str) -> dict:
    assert card.startswith("---\n")
    return yaml.safe_load(card.split("---\n")[1])


def test_an_adapter_names_peft_and_its_base_model():
    matter = front_matter(model_card(REPORT, ADAPTER))
    assert matter["library_name"] == "peft"
    assert matter["base_model"] == "org/base: 1"
    assert "lora" in matter["tags"]


def test_a_whole_model_names_transformers_and_no_base_model():
    matter = front_matter(model_card(REPORT, FACTS))
    assert matter["library_name"] == "transformers"
    assert "base_model" not in matter


def test_the_card_shows_each_tasks_scores_and_the_plans():
    card = model_card(REPORT, FACTS)
    for name in TASKS:
        task = REPORT.tasks[name]
        scores = " | ".join(score_text(score) for score in (task.first_score, task.last_score, task.test_score))
        assert f"| {name} | {task.kind} | {scores} |" in card
    assert f"{REPORT.num_plans} plans" in card
    assert f"Stage 2 began at step {REPORT.stage_boundary_step}" in card


@pytest.mark.parametrize(("unit", "words"), [("samples", "samples"), ("tokens", "supervised tokens")])
def test_shares_are_of_what_the_weights_are_shares_of(unit: WeightUnit, words: str):
    card = model_card(dataclasses.replace(REPORT, weight_unit=unit), FACTS)
    assert f"| task | first weight | last weight | share of {words} | samples |" in card


def test_the_loading_code_is_python():
    for facts in (FACTS, ADAPTER):
        code = model_card(REPORT, facts).split("```python\n")[1].split("```")[0]
        compile(code, "card", "exec")
        assert ("peft" in code) == facts.has_adapter
        assert "trust_remote_code" not in code
        trusting = model_card(REPORT, dataclasses.replace(facts, trust_remote_code=True))
        assert trusting.count("from_pretrained(path, trust_remote_code=True)") == 2


def test_a_pipe_in_a_name_does_not_break_the_table():
    tasks = {"a|b": REPORT.tasks["lcr"]}
    assert r"| a\|b |" in model_card(dataclasses.replace(REPORT, tasks=tasks), FACTS)


def test_the_card_names_each_source_with_its_refused_rows_and_licences():
    rows = {name: RowCounts(train=9, probe=1, test=1) for name in TASKS}
    source = SourceFacts(path="data/a.jsonl", num_read=1200, num_refused=3, licences=("CC-BY-4.0", "MIT"))
    card = model_card(REPORT, dataclasses.replace(FACTS, rows=rows, sources=(source,)))
    assert "| data/a.jsonl | 1,200 | 3 | CC-BY-4.0, MIT |" in card
