"""The documentation says what the code does: every snippet, command, link, path and default in docs/ is tried."""

import ast
import importlib.util
import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from yaml import ScalarNode

from cluster import settings_reference
from cluster.cli import main
from cluster.config import LaunchConfig, RunConfig
from cluster.data import TasksFile
from cluster.settings import load_config
from cluster.settings.dialect import TAG, Loader, scalar
from cluster.settings.schema import Shape
from cluster.sweep.config import SweepConfig
from cluster.sweep.sensitivity import SensitivityConfig
from evalsvc.human_verdicts import HumanVerdict
from evalsvc.report.tables import write_ledger_tables
from scheduler.ledger import LedgerWriter
from scheduler.records import _TYPE_OF_KIND, from_json, to_json
from tests.unit.evalsvc.report.simulated_run import simulated_records
from train.config import SourceConfig
from train.data.sources import read_source
from train.data.verify import write_quarantine

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
MINIMAL = {"model": "model: {type: tiny}\n", "data": "data: [a.jsonl]\n"}


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: its page, line, language and text."""

    place: str
    language: str
    text: str

    def __str__(self) -> str:
        return self.place


def blocks(*languages: str) -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            line = text.count("\n", 0, match.start()) + 1
            found.append(Block(f"{page.name}:{line}", match[1], match[2]))
    return [block for block in found if block.language in languages]


def prose(page: Path) -> str:
    """The page without its fenced blocks, each paragraph on one line."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"(?<=\S)\n(?=[^\s|#-])", " ", text)


def lines_of(*languages: str) -> list[tuple[Block, str]]:
    """Every command or record of the blocks, without comments."""
    return [(block, line) for block in blocks(*languages) for line in block.text.splitlines() if line.strip()]


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_every_yaml_block_is_part_of_a_valid_configuration(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    keys = set(re.findall(r"^(\w+):", block.text, re.MULTILINE))
    missing = "".join(text for key, text in MINIMAL.items() if key not in keys)
    file.write_text(block.text, encoding="utf-8")
    if block.text.startswith("# tasks.yaml"):
        load_config(TasksFile, files=[file])
    elif keys <= LaunchConfig.model_fields.keys() and keys != {"stages"}:  # both have stages
        load_config(LaunchConfig, files=[file])
    elif "space" in keys:
        load_config(SweepConfig, files=[file])
    elif "group" in keys:
        load_config(SensitivityConfig, files=[file])
    else:
        file.write_text(block.text + missing, encoding="utf-8")
        load_config(RunConfig, files=[file])


@pytest.mark.parametrize(("block", "line"), lines_of("jsonl"), ids=str)
def test_every_jsonl_line_is_read_by_the_code_that_reads_its_kind(block: Block, line: str, tmp_path: Path) -> None:
    fields = json.loads(line)
    if "kind" in fields:
        assert to_json(from_json(line)) == line
    elif "verdict" in fields:
        HumanVerdict.model_validate_json(line)
    else:
        file = tmp_path / "rows.jsonl"
        file.write_text(line + "\n", encoding="utf-8")
        assert not read_source(SourceConfig(path=file)).refusals, block


def test_every_kind_of_record_has_an_example_line() -> None:
    page = (ROOT / "docs" / "ledger.md").read_text(encoding="utf-8")
    assert set(re.findall(r'^\{"kind":"(\w+)"', page, re.MULTILINE)) == _TYPE_OF_KIND.keys()


@pytest.mark.parametrize(("block", "line"), lines_of("bash"), ids=str)
def test_every_command_exists_and_takes_its_arguments(
    block: Block, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, *arguments = shlex.split(line, comments=True)
    match program, arguments:
        case "python", ["-m", module, *_]:
            assert importlib.util.find_spec(module), f"{block}: no module {module}"
        case "taskheat", ["run", *rest] if not {"--resume", "--fork"} & set(rest):
            if (ROOT / rest[0]).exists():
                monkeypatch.chdir(ROOT)
            else:
                monkeypatch.chdir(tmp_path)
                Path(rest[0]).write_text("".join(MINIMAL.values()), encoding="utf-8")
            result = CliRunner().invoke(main, [*arguments, "--dry-run"])
            assert result.exit_code == 0, f"{block}: {result.output}"
        case "taskheat", [command, *rest]:
            main.commands[command].make_context(command, list(rest))
        case _:
            pytest.fail(f"{block}: nobody checks the command {line!r}")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which runs/demo is a run, played through the real engine."""
    folder = tmp_path_factory.mktemp("docs")
    ledger = LedgerWriter(folder / "runs" / "demo" / "ledger" / "ledger.jsonl")
    records = simulated_records()
    for record in records:
        ledger.append(record)
    ledger.close()
    write_ledger_tables(records, ledger.path.parent)
    write_quarantine(folder / "runs" / "demo" / "quarantine.parquet", [])
    return folder


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_every_python_block_runs_in_the_folder_of_a_run(
    block: Block, run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run_folder)
    exec(compile(block.text, block.place, "exec"), {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", prose(page)):
        if not target.startswith("http"):
            path, _, anchor = target.partition("#")
            file = page.parent / path if path else page
            assert file.exists(), f"{page.name}: {target}"
            assert not anchor or anchor in headings(file), f"{page.name}: {target}"


def headings(page: Path) -> set[str]:
    """Anchors as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_and_every_test_named_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for named in re.findall(r"[\w.-]+(?:/[\w.-]+)+\.(?:py|yaml|toml|md)\b", text):
        is_example = named.startswith("runs/")
        assert is_example or (ROOT / named).exists(), f"{page.name} names {named}"
    for file, test in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text):
        functions = ast.parse((ROOT / file).read_text(encoding="utf-8")).body
        assert test in {getattr(item, "name", "") for item in functions}, f"{page.name} names {file}::{test}"


def test_every_test_named_without_its_file_stands_in_the_file_named_before_it() -> None:
    """The table of invariants writes `file` once, then `test_…` names."""
    for page in PAGES:
        for row in re.findall(r"^\|.*`tests/.*\|$", page.read_text(encoding="utf-8"), re.MULTILINE):
            source = ""
            for name in re.findall(r"`([^`]+)`", row):
                if name.startswith("tests/"):
                    source = (ROOT / name).read_text(encoding="utf-8")
                elif name.startswith("test_"):
                    assert f"def {name}(" in source, f"{page.name}: {name}"


def all_paths() -> dict[str, FieldInfo | None]:
    """Every settings path, with its field; a list's entry is `0`, a mapping's `NAME`."""
    found: dict[str, FieldInfo | None] = {}
    for section in settings_reference.sections():
        for place in section.places:
            found.setdefault(place, None)
            for name, field in section.model.model_fields.items():
                found[f"{place}.{name}".removeprefix(".")] = field
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_settings_path_in_the_text_exists_and_every_default_given_is_true(page: Path) -> None:
    paths, text = all_paths(), prose(page)
    for path, default in re.findall(r"`([a-z_]+(?:\.\w+)+)`(?: \(default ([^),:]+)[),:])?", text):
        if path.endswith(".yaml") or path.split(".")[0] not in {*RunConfig.model_fields, "launch"}:
            continue
        assert path in paths, f"{page.name}: {path} is no setting"
        field = paths[path]
        if default and field is not None:
            assert f"`{default}`" == settings_reference.default_words(field), f"{page.name}: {path}"


def models(root: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Every model below `root`, found by another way than the generator's."""
    yield root
    for path in Shape.of(root).paths():
        shape = Shape.of(root)
        for key in path:
            shape = shape.under(key)
        yield from shape.models
        if shape.under("0"):
            yield from shape.under("0").models


@pytest.mark.parametrize("root", [RunConfig, LaunchConfig])
def test_every_setting_is_in_the_reference_with_its_true_default(root: type[BaseModel]) -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    for model in set(models(root)):
        section = re.search(rf"^### {model.__name__}\n(.*?)(?=^### |^<!-- )", page, re.MULTILINE | re.DOTALL)
        assert section, f"no section {model.__name__}"
        rows = dict(re.findall(r"^\| `(\w+)` \| .*? \| (`[^`]*`|required) \|", section[1], re.MULTILINE))
        assert rows.keys() == model.model_fields.keys() - {"type"}, model.__name__
        for name, shown in rows.items():
            field = model.model_fields[name]
            default = "required" if field.is_required() else field.get_default(call_default_factory=True)
            if isinstance(default, str | int | float | None):
                assert yaml_value(shown.strip("`")) == default, f"{model.__name__}.{name}: {shown}"


def yaml_value(text: str) -> object:
    """The text as the settings' own YAML reads it."""
    node = Loader(text).get_single_node()
    assert isinstance(node, ScalarNode)
    return node.value if node.tag == TAG + "str" else scalar(node.tag.removeprefix(TAG), node.value)


def test_the_reference_is_up_to_date_and_no_setting_is_unexplained() -> None:
    page = settings_reference.DOCUMENT.read_text(encoding="utf-8")
    remedy = "run `python -m cluster.settings_reference` and fill in the meanings it names"
    assert settings_reference.renewed(page) == page, remedy
    assert settings_reference.unexplained(page) == [], remedy
