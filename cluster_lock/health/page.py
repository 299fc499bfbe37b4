"""The status page: one file that needs nothing else, and the policy under which a browser runs only what is in it."""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from importlib import resources


@cache
def page() -> bytes:
    """The HTML. Nothing is filled in: what it shows it fetches, and sets as text."""
    return resources.files(__package__).joinpath("page.html").read_bytes()


@cache
def page_policy() -> str:
    """The Content-Security-Policy: the one style and the one script of the page by their hashes, events of this server,
    and nothing else."""
    style, script = (_hash_of(tag) for tag in ("style", "script"))
    return (
        f"default-src 'none'; style-src {style}; script-src {script}; connect-src 'self'; img-src data:;"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _hash_of(tag: str) -> str:
    found = re.findall(rb"<%b>(.*?)</%b>" % (tag.encode(), tag.encode()), page(), re.DOTALL)
    assert len(found) == 1, f"the page has one <{tag}>"
    return f"'sha256-{base64.b64encode(hashlib.sha256(found[0]).digest()).decode()}'"
