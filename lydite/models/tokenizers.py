"""A tokenizer alone, without its model, from a folder or the hub."""

from typing import Any

from lydite.errors import ModelError


def read_tokenizer(spec: str, *, trust_remote_code: bool = False) -> Any:
    """The transformers tokenizer of a folder or hub name. Raises ModelError in one line."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(spec, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError) as error:
        why = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelError(f"{spec} holds no tokenizer that transformers reads: {why}") from error
