"""What UTF-8 can say."""

from __future__ import annotations


def is_text(content: str | bytes) -> bool:
    """Bytes that are not UTF-8 are none, nor is half a character, which Python makes of such a byte."""
    try:
        content.encode() if isinstance(content, str) else content.decode()
    except UnicodeError:
        return False
    return True
