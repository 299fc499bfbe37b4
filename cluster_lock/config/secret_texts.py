"""The secrets in settings, as texts, for whoever must blot them out of what is shown."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, SecretStr


def secret_texts(settings: BaseModel) -> tuple[str, ...]:
    """Every secret, in every section. Show them to nobody."""
    return tuple(_secrets(settings))


def _secrets(section: BaseModel) -> Iterator[str]:
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, SecretStr):
            if text := value.get_secret_value():
                yield text
        elif isinstance(value, BaseModel):
            yield from _secrets(value)
