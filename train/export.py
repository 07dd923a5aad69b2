"""Export: the result in Hugging Face layout, loadable with plain transformers and peft."""

import copy
from pathlib import Path

from peft import PeftModel, set_peft_model_state_dict
from peft.utils import load_peft_weights
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase


def export_model(model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """Write adapter or full weights (safetensors) and the tokenizer into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(str(directory))
    tokenizer.save_pretrained(str(directory))


def export_merged(model: PeftModel, tokenizer: PreTrainedTokenizerBase, directory: Path) -> None:
    """Write the base model with the adapter merged into its weights: loads with plain transformers.

    The model given stays as it is; the merged copy takes as much memory again while it is written.
    """
    merged = copy.deepcopy(model).merge_and_unload()
    export_model(merged, tokenizer, directory)  # pyright: ignore[reportArgumentType]


def load_export(model: PreTrainedModel | PeftModel, directory: Path, *, trust_remote_code: bool = False) -> None:
    """Put what `export_model` wrote back into a model of the same build.

    Raises:
        ValueError: The model's code comes with it, and `trust_remote_code` does not let it run.
    """
    if isinstance(model, PeftModel):
        set_peft_model_state_dict(model, load_peft_weights(str(directory), device="cpu"))
        return
    exported = AutoModelForCausalLM.from_pretrained(
        directory, dtype=model.dtype, use_safetensors=True, trust_remote_code=trust_remote_code
    )
    model.load_state_dict(exported.state_dict())
