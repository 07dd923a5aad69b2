import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from cluster.cli import main
from cluster.config import RunConfig
from cluster.data import TasksFile, task_cards
from cluster.prepare import first_cards
from cluster.settings import load_config
from cluster.setup import gather_inputs
from scheduler.errors import DataError
from scheduler.output_spec import ChoicesRule, DecimalsRule, LengthRule
from scheduler.task import ExactChecker, NumericChecker, OverlapChecker, TaskCard
from train.data.rules import check_output
from train.data.sources import read_source
from train.data.verify import verify_row

ANSWERS = {
    "verdict": ["allowed", "refused", " allowed"] * 20,
    "spread": [f"{n / 7:.2f}%" for n in range(60)],
    "rating": [f"$1,2{n:02}" for n in range(60)],
    "ragged": ["1.5", "1.25"] + [f"{n}" for n in range(58)],
    "definition": [f"yield minus base {n}" for n in range(60)],
    "memo": [f"Dear committee, position {n} " + "may fall further than it did last year " * 2 for n in range(60)],
    "备忘": [f"流动性覆盖率可能在未来几个月内继续下降到第{n}级" for n in range(60)],
}


def write_run(folder: Path, answers: dict[str, list[str]], *, tasks_file: bool = False) -> Path:
    for task, texts in answers.items():
        rows = [{"instruction": f"{task} {n}", "output": text} for n, text in enumerate(texts)]
        (folder / f"{task}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data = {"sources": [f"{task}.jsonl" for task in answers], **({"tasks_file": "tasks.yaml"} if tasks_file else {})}
    config = {"model": {"type": "tiny", "vocab_size": 300}, "data": data, "output": {"dir": "runs"}}
    (folder / "run.yaml").write_text(json.dumps(config), encoding="utf-8")
    return folder / "run.yaml"


def cards_of(folder: Path, answers: dict[str, list[str]]) -> dict[str, TaskCard]:
    file = folder / "tasks.yaml"
    file.write_text(first_cards(answers), encoding="utf-8")
    return load_config(TasksFile, files=[file]).tasks


def test_prepare_leaves_what_a_run_finds_and_says_so_the_second_time(tmp_path: Path) -> None:
    config = write_run(tmp_path, {"definition": ANSWERS["definition"], "memo": ANSWERS["memo"]})
    first = CliRunner().invoke(main, ["prepare", str(config), "seed=5"])
    assert first.exit_code == 0, first.output
    again = CliRunner().invoke(main, ["prepare", str(config), "seed=5"])
    found = gather_inputs(load_config(RunConfig, files=[config], overrides=["seed=5"])).prepared
    assert f"{found.path} (written now)" in first.stdout
    assert f"{found.path} (complete already, nothing changed)" in again.stdout
    assert str(found.summary) in first.stdout


def test_the_json_names_the_folder_the_quarantine_and_the_refusals_by_rule(tmp_path: Path) -> None:
    config = write_run(tmp_path, {"definition": ANSWERS["definition"]})
    with (tmp_path / "definition.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"instruction": "definition 0", "output": "yield minus base 0"}\nnot json\n')
    done = CliRunner().invoke(main, ["prepare", str(config), "data.max_refused_ratio=0.1", "--json"])
    found = json.loads(done.stdout)
    assert found["refused"] == {"malformed_json": 1, "duplicate": 1}
    assert pq.read_table(found["quarantine"]).num_rows == 2
    assert (Path(found["path"]) / "store").is_dir()
    assert [task["num_train"] for task in found["summary"]["tasks"]] == [36]
    assert found["was_complete"] is False


def test_the_folder_does_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    config = write_run(tmp_path, {"definition": ANSWERS["definition"], "memo": ANSWERS["memo"]})
    found = []
    for number, workers in enumerate(("1", "2")):
        arguments = ["prepare", str(config), f"output.dir={tmp_path / str(number)}", "--workers", workers, "--json"]
        found.append(json.loads(CliRunner().invoke(main, arguments).stdout))
    assert found[0]["summary"] == found[1]["summary"]
    stores = [Path(item["path"]) / "store" for item in found]
    assert {path.name: path.read_bytes() for path in stores[0].iterdir()} == {
        path.name: path.read_bytes() for path in stores[1].iterdir()
    }


def test_prompts_alone_are_prepared_but_not_run(tmp_path: Path) -> None:
    (tmp_path / "asked.jsonl").write_text("".join(f'{{"prompt": "why {n}?"}}\n' for n in range(9)), encoding="utf-8")
    data = {"sources": [{"path": "asked.jsonl", "split": "test"}]}
    config = {"model": {"type": "tiny", "vocab_size": 300}, "data": data, "output": {"dir": "runs"}}
    (tmp_path / "run.yaml").write_text(json.dumps(config), encoding="utf-8")
    done = CliRunner().invoke(main, ["prepare", str(tmp_path / "run.yaml")])
    assert done.exit_code == 0, done.output
    assert "no task has rows to train on" in done.stdout
    assert "for evaluation only: asked 9" in done.stdout
    with pytest.raises(DataError, match="all 9 rows are prompts without an answer"):
        gather_inputs(load_config(RunConfig, files=[tmp_path / "run.yaml"]))


def test_refused_data_ends_with_exit_code_2_and_the_reason(tmp_path: Path) -> None:
    config = write_run(tmp_path, {"definition": ANSWERS["definition"]})
    good = '{"instruction": "why?", "output": "so"}\n'
    (tmp_path / "definition.jsonl").write_text(good + "not json\n" * 9, encoding="utf-8")
    done = CliRunner().invoke(main, ["prepare", str(config)])
    assert done.exit_code == 2
    assert "9 of 10 rows are refused (malformed_json 9)" in done.stderr


def test_every_kind_of_answer_gets_its_rule_and_its_checker(tmp_path: Path) -> None:
    cards = cards_of(tmp_path, ANSWERS)
    assert {name: (card.output_rules, card.checker) for name, card in cards.items()} == {
        "verdict": ((ChoicesRule(values=("allowed", "refused")),), ExactChecker()),
        "spread": ((DecimalsRule(places=2),), NumericChecker()),
        "rating": ((DecimalsRule(places=0),), NumericChecker()),
        "ragged": ((LengthRule(min_chars=1, max_chars=8),), NumericChecker()),
        "definition": ((LengthRule(min_chars=9, max_chars=38),), ExactChecker()),
        "memo": ((cards["memo"].output_rules), OverlapChecker()),
        "备忘": ((cards["备忘"].output_rules), OverlapChecker()),
    }
    assert {card.kind for card in cards.values()} == {"general"}


def test_a_few_rows_that_all_differ_are_no_choices(tmp_path: Path) -> None:
    (rule,) = cards_of(tmp_path, {"few": ["red", "green", "blue", "red"]})["few"].output_rules
    assert isinstance(rule, LengthRule)


answers_of_tasks = st.dictionaries(
    st.text(min_size=1, max_size=6).filter(str.strip),
    st.lists(
        st.one_of(st.text(min_size=1, max_size=12), st.sampled_from(["1.0", "-2.5", "${X}", "no", "٣", "1,5"])).filter(
            str.strip
        ),
        min_size=1,
        max_size=20,
    ),
    min_size=1,
    max_size=3,
)


@given(answers_of_tasks)
def test_whatever_the_answers_and_names_the_cards_load_and_every_answer_keeps_its_rules(
    tmp_path_factory: pytest.TempPathFactory, answers: dict[str, list[str]]
) -> None:
    cards = cards_of(tmp_path_factory.mktemp("cards"), answers)
    assert cards.keys() == answers.keys()
    for task, texts in answers.items():
        assert not [text for text in texts if check_output(cards[task].output_rules, text)]


def test_init_writes_a_file_that_the_run_loads_and_whose_rules_every_row_passes(tmp_path: Path) -> None:
    config = write_run(tmp_path, ANSWERS, tasks_file=True)
    done = CliRunner().invoke(main, ["prepare", str(config), "--init", str(tmp_path / "tasks.yaml")])
    assert done.exit_code == 0, done.output
    loaded = load_config(RunConfig, files=[config])
    cards = task_cards(loaded)
    assert cards.keys() == ANSWERS.keys()
    rows = [row for source in loaded.data.sources for row in read_source(source).rows]
    assert {verify_row(row, cards[row.task], loaded.data) for row in rows} == {()}


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    config = write_run(tmp_path, {"memo": ANSWERS["memo"]})
    file = tmp_path / "tasks.yaml"
    file.write_text("tasks: {}\n", encoding="utf-8")
    done = CliRunner().invoke(main, ["prepare", str(config), "--init", str(file)])
    assert (done.exit_code, file.read_text(encoding="utf-8")) == (2, "tasks: {}\n")
    assert "is not overwritten" in done.stderr


@pytest.mark.parametrize(("more", "unwanted"), [([], {"ray"}), (["--init", "tasks.yaml"], {"ray", "torch"})])
def test_prepare_never_imports_ray_nor_init_torch(tmp_path: Path, more: list[str], unwanted: set[str]) -> None:
    write_run(tmp_path, {"definition": ANSWERS["definition"]})
    code = (
        "import sys\nfrom cluster.cli import main\n"
        "try:\n    main(sys.argv[1:])\nfinally:\n    print('imported', *sys.modules)"
    )
    command = [sys.executable, "-c", code, "prepare", "run.yaml", *more]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert not unwanted & set(done.stdout.rpartition("imported")[2].split())
