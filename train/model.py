"""Models: load or build, attach adapters, name what is trained, compute the loss at supervised positions.

The same function builds the model for the workers, the evaluation and the export, so a snapshot of the trainable
weights is all that has to travel.
"""

import logging
from collections.abc import Mapping

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import PeftModel, get_peft_model
from torch import nn
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from scheduler.errors import ConfigError
from train.batch import TokenBatch
from train.config import ModelConfig, PretrainedModel, TinyModel
from train.model_path import check_local
from train.precision import training_dtype
from train.supervised_logits import base_of, keeps_marked_positions, logits_at

logger = logging.getLogger(__name__)


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Token that fills up short rows. Attention and loss never see it, so any token will do."""
    token_id = _id(tokenizer.pad_token_id)
    return 0 if token_id is None else token_id


def build_model(
    config: ModelConfig,
    tokenizer: PreTrainedTokenizerBase,
    *,
    device: torch.device,
    seed: int,
    at: torch.device | None = None,
) -> PreTrainedModel | PeftModel:
    """Build the model for computing on `device`, adapters attached, trainable parameters in float32.

    Its weights are at `at`, on that device if None. Equal arguments give equal weights, on every process.
    """
    torch.manual_seed(seed)
    match config:
        case TinyModel():
            return _tiny(config, tokenizer).to(at or device)  # pyright: ignore[reportArgumentType]
        case PretrainedModel():
            return _pretrained(config, device).to(at or device)  # pyright: ignore[reportArgumentType]


def _tiny(config: TinyModel, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.hidden_size,
            intermediate_size=4 * config.hidden_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_heads,
            max_position_embeddings=config.max_position_embeddings,
            tie_word_embeddings=True,
            bos_token_id=_id(tokenizer.bos_token_id),
            eos_token_id=_id(tokenizer.eos_token_id),
            pad_token_id=_id(tokenizer.pad_token_id),
        )
    )


def _id(token_id: object) -> int | None:
    return token_id if isinstance(token_id, int) else None


def _pretrained(config: PretrainedModel, device: torch.device) -> PreTrainedModel | PeftModel:
    dtype = training_dtype(config, device) if config.lora else torch.float32
    check_local(config.path)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            config.path, dtype=dtype, use_safetensors=True, trust_remote_code=config.trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise ConfigError(f"model.path: {config.path} cannot be loaded as a causal LM: {error}") from error
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if config.lora is None:
        return model
    targets = config.lora.target_modules
    adapted = get_peft_model(
        model,
        PeftLoraConfig(
            task_type="CAUSAL_LM",
            r=config.lora.rank,
            lora_alpha=config.lora.alpha,  # pyright: ignore[reportArgumentType]
            lora_dropout=config.lora.dropout,
            target_modules=targets if isinstance(targets, str) else list(targets),
            use_rslora=config.lora.rslora,
            use_dora=config.lora.dora,
        ),
    )
    for parameter in trainable_parameters(adapted).values():
        parameter.data = parameter.data.float()  # peft leaves DoRA's lengths in the dtype of the frozen weights
    return adapted


def trainable_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that are trained, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def snapshot(model: nn.Module) -> dict[str, torch.Tensor]:
    """CPU copy of the trainable parameters, safe to hand to another process while training goes on."""
    return {name: value.detach().to("cpu", copy=True) for name, value in trainable_parameters(model).items()}


def load_snapshot(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Copy a snapshot into `model`. Raises ValueError when the names differ."""
    parameters = trainable_parameters(model)
    check_snapshot(parameters, weights)
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])


def check_snapshot(parameters: Mapping[str, torch.Tensor], weights: Mapping[str, torch.Tensor]) -> None:
    """Raise ValueError when a snapshot has other names than the parameters it is meant for."""
    if parameters.keys() != weights.keys():
        different = sorted(parameters.keys() ^ weights.keys())
        raise ValueError(f"the snapshot is of another model: {len(different)} names differ, first {different[:3]}")


class SupervisedLoss(nn.Module):
    """Cross-entropy at supervised positions only; the LM head is applied to those alone where the model offers that.

    A packed batch is for a model that `train.packing.accepts_packed` has prepared. A model whose forward has no
    `logits_to_keep`, or one that takes no mask, goes the full, slower way, with a warning.
    """

    def __init__(self, model: PreTrainedModel | PeftModel) -> None:
        super().__init__()
        self.model = model
        self._head_is_sparse = keeps_marked_positions(model)
        if not self._head_is_sparse:
            logger.warning("%s computes logits at every position: slower, same loss", type(base_of(model)).__name__)

    def forward(self, batch: TokenBatch) -> torch.Tensor:
        """Loss in nats per supervised token [N], in row-major order of the batch."""
        arguments = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "use_cache": False}
        if batch.sequences is not None:
            arguments |= {"position_ids": batch.position_ids, "packed_sequences": batch.sequences}
        logits = logits_at(self.model, arguments, batch.predicts_answer, head_is_sparse=self._head_is_sparse)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return functional.cross_entropy(logits.flatten(end_dim=-2), batch.labels, reduction="none")
