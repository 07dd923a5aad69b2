"""What `model.path` names, a folder or a hub id, and the tokenizer that lies there. Needs no torch."""

from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from scheduler.errors import ConfigError


def check_local(path: str) -> None:
    """Raise ConfigError where the path looks like one of this machine and is no folder."""
    looks_local = path.startswith((".", "/", "~")) or Path(path).exists()
    if looks_local and not Path(path).is_dir():
        raise ConfigError(f"model.path: {path} is not a folder; give a Hugging Face model folder or a hub id")


def load_tokenizer(path: Path | str, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """Load a tokenizer folder or hub id; code that lies with it runs only if it is trusted.

    Raises:
        ConfigError: There is no tokenizer, or it needs code that is not trusted.
    """
    check_local(str(path))
    try:
        return AutoTokenizer.from_pretrained(str(path), trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise ConfigError(f"model.path: no tokenizer can be loaded from {path}: {error}") from error
