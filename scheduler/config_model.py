"""The base of everything a person writes: unknown keys are refused, values cannot change after validation."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError


class ConfigModel(BaseModel):
    """Frozen, closed pydantic model. One default per setting, in its field."""

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")


def faults(error: ValidationError) -> str:
    """What was refused, in the validators' own words."""
    return "; ".join(problem["msg"] for problem in error.errors())


class PathLike:
    """Marks a string that is a path if it starts with `./`, `../`, `/` or `~`, else a name: `Annotated[str, PathLike]`.

    Whoever reads settings from files resolves such a path against the file that states it, as it does for `Path`.
    """


class UrlLike:
    """Marks a string that is never a path, whatever else may stand in its place: it names its protocol."""


Url = Annotated[str, Field(pattern=r"^[a-z][a-z0-9+.-]*://"), UrlLike]
"""`protocol://…`; where `Path | Url` stands, such a string is left alone and any other is a path."""
