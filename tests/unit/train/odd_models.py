"""Models that do not leave positions out the way those of transformers do."""

from typing import Any

from transformers import LlamaForCausalLM


class FullLogitsLlama(LlamaForCausalLM):
    """A model whose forward cannot leave positions out."""

    def forward(  # type: ignore[override]
        self,
        input_ids: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        past_key_values: Any = None,
        use_cache: Any = None,
    ) -> Any:
        return super().forward(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
        )


class AllLogitsLlama(LlamaForCausalLM):
    """A model that takes positions but cannot leave any out."""

    def forward(self, input_ids: Any = None, position_ids: Any = None, **kwargs: Any) -> Any:  # type: ignore[override]
        return super().forward(input_ids=input_ids, position_ids=position_ids, **kwargs)


class LastLogitsLlama(LlamaForCausalLM):
    """A model that can leave out all but the last positions, and knows no other way to say which."""

    def forward(self, input_ids: Any = None, logits_to_keep: Any = 0, **kwargs: Any) -> Any:  # type: ignore[override]
        output = super().forward(input_ids=input_ids, **kwargs)
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        output.logits = output.logits[:, keep, :]  # pyright: ignore[reportOptionalSubscript]
        return output
