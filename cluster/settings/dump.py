"""`dump_config`: a model to YAML that loads equal."""

from typing import Any

import yaml
from pydantic import BaseModel

from cluster.settings.dialect import Dumper


def dump_config(config: BaseModel) -> str:
    """YAML of every setting, defaults too, in the order of the model; `load_config` of it equals `config`.

    Relative paths are written as they are: only those that `load_config` made absolute mean the same in any directory.
    """
    data = _literal(config.model_dump(mode="json"))
    return yaml.dump(data, Dumper=Dumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=120)


def _literal(value: Any) -> Any:
    """The value with every `${` in its strings kept from being expanded when read back."""
    if isinstance(value, dict):
        return {key: _literal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_literal(item) for item in value]
    return value.replace("${", "$${") if isinstance(value, str) else value
