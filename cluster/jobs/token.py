"""The token of a cluster with token authentication: where Ray looks for it, in Ray's order.

`RAY_AUTH_TOKEN`, the file named by `RAY_AUTH_TOKEN_PATH`, then `~/.ray/auth_token`
(https://docs.ray.io/en/latest/ray-security/token-auth.html).
"""

import os
from collections.abc import Mapping
from pathlib import Path

from scheduler.errors import ConfigError


def token_file(environment: Mapping[str, str] = os.environ) -> Path:
    """The file in which Ray looks for the token, whether it exists or not."""
    named = environment.get("RAY_AUTH_TOKEN_PATH")
    return Path(named) if named else Path(environment.get("HOME", "~")).expanduser() / ".ray" / "auth_token"


def read_token(environment: Mapping[str, str] = os.environ) -> str | None:
    """The token, or None where there is none or `RAY_AUTH_MODE` says `disabled`.

    Raises:
        ConfigError: `RAY_AUTH_TOKEN_PATH` names a file that cannot be read.
    """
    if environment.get("RAY_AUTH_MODE", "").lower() == "disabled":
        return None
    if token := environment.get("RAY_AUTH_TOKEN"):
        return token.strip()
    file = token_file(environment)
    try:
        return file.read_text(encoding="utf-8").strip() or None
    except OSError as error:
        if "RAY_AUTH_TOKEN_PATH" not in environment and not file.exists():
            return None
        raise ConfigError(
            f"the token file {file} cannot be read ({error.strerror}); correct RAY_AUTH_TOKEN_PATH or the file's mode"
        ) from error
