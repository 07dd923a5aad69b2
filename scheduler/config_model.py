"""The base of everything a person writes: unknown keys are refused, values cannot change after validation."""

from pydantic import BaseModel, ConfigDict


class ConfigModel(BaseModel):
    """Frozen, closed pydantic model. One default per setting, in its field."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


class PathLike:
    """Marks a string that is a path if it starts with `./`, `../`, `/` or `~`, else a name: `Annotated[str, PathLike]`.

    Whoever reads settings from files resolves such a path against the file that states it, as it does for `Path`.
    """
