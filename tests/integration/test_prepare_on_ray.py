"""A preparation shared out on a real local Ray is the same as one made by this process, byte for byte."""

import hashlib
import json
from pathlib import Path

import pytest

from cluster.prepare import chosen_executor
from cluster.prepare_on_ray import RayExecutor
from scheduler.errors import ResourceError
from tests.unit.train.data.test_prepare import Tiny
from train.config import DataConfig
from train.data.prepare import Prepared, prepare
from train.data.preparing.execute import Executor, LocalExecutor


def write_rows(path: Path, num_rows: int = 400) -> Path:
    rows = [
        {"task": "ab"[n % 2], "id": f"r{n}", "instruction": f"what is {n % 380}", "output": f"it is {n % 380}"}
        for n in range(num_rows)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def prepared_by(executor: Executor, source: Path, out: Path) -> Prepared:
    config = DataConfig.model_validate({"sources": [{"path": str(source), "task_column": "task"}]})
    return prepare(
        config,
        specs={},
        tokenizer_source=Tiny(),
        chat_template="auto",
        out_dir=out,
        seed=7,
        executor=executor,
        shard_bytes=4000,
    )


def digests(prepared: Prepared) -> dict[str, str]:
    files = (path for path in sorted(prepared.path.rglob("*")) if path.is_file())
    return {str(path.relative_to(prepared.path)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.ray
@pytest.mark.usefixtures("local_ray")
def test_ray_and_a_pool_prepare_what_this_process_prepares(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "rows.jsonl")
    here = prepared_by(LocalExecutor(1), source, tmp_path / "here")
    assert here.summary.sources[0].refused == {"duplicate": 20}
    with RayExecutor("local") as executor:
        assert list(executor.map(str, list(range(20)))) == [str(number) for number in range(20)]
        on_ray = prepared_by(executor, source, tmp_path / "ray")
    with LocalExecutor(2) as executor:
        in_pool = prepared_by(executor, source, tmp_path / "pool")
    assert digests(on_ray) == digests(here) == digests(in_pool)


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "nowhere:ten"])
def test_an_address_without_a_cluster_is_refused_at_once_by_name(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    expected = f"--ray {address}: no Ray cluster there .* use --ray local"
    with pytest.raises(ResourceError, match=expected), chosen_executor(workers=None, address=address):
        pass
