"""Blotting secrets out of what people get to read: one register of them in a process, and what secrets look like."""

from __future__ import annotations

import base64
import html
import json
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from urllib.parse import quote, quote_plus

MASK = "***"
SECRET_NAME = re.compile(r"token|password|passwd|secret|credential|api[_-]?key|private|auth(?!or)", re.IGNORECASE)
"""What something is called that holds a secret."""

_BY_LOOK = (
    re.compile(
        r"(?<!\d)\d{5,}(?::|%3A|%253A)[\w-]{10,}", re.IGNORECASE
    ),  # a Telegram token, also in "/bot123:ABC/getMe"
    re.compile(r"(?<=-----BEGIN )[A-Z ]*PRIVATE KEY-----.*?(?=-----END|\Z)", re.DOTALL),
    # User and password in an address, up to the last "@": a password may have a slash or an "@" in it. Where there is
    # none, the same is looked at again from the next "://" on: hence the limit.
    re.compile(r"(?<=://)[^/@\s:]*:\S{0,500}(?=@[\w.-])"),
    re.compile(r"(?<=://)[^/\s]+(?=@)"),
)
_TOKEN = re.compile(r"\d+:([\w-]{10,})")
"""Telegram's: the half behind the colon is the secret."""
_SHORTEST = 4
_SHORTEST_ENCODED = 8
"""Characters: what is left in the middle of a shorter one, in base64, would be found anywhere."""
_LONGEST_BY_LOOK = 4096
"""Characters of a secret that nobody told us, at most."""

STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What moves a terminal's cursor, colours it, sets its title or turns its text round. Not the end of a line."""


class _Register:
    """The secrets of this process, in all the forms that they are written in, longest first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.known: frozenset[str] = frozenset()
        self.pattern: re.Pattern[str] | None = None
        self.longest = 0
        """Characters of the longest form."""

    def add(self, secrets: Iterable[str]) -> None:
        with self._lock:
            new = self.known.union(secrets)
            if new != self.known:
                self.known = new
                self.pattern = _pattern(new)
                self.longest = max((len(form) for secret in new for form in _forms(secret)), default=0)


_register = _Register()


def keep_secret(*secrets: str) -> None:
    """From here on `masked` blots these out, in everything that this process logs, prints or raises for people.
    `config.load` does it with all that it finds."""
    halves = [found[1] for secret in secrets if (found := _TOKEN.fullmatch(secret))]
    _register.add(secret for secret in (*secrets, *halves) if len(secret) >= _SHORTEST)


def kept_secrets() -> frozenset[str]:
    """All that `keep_secret` was given, for a process that takes this one's place. Show them to nobody."""
    return _register.known


def masked(text: str, secrets: Iterable[str] = ()) -> str:
    """`text` fit for a terminal or a log: without the secrets of this process, nor these, without what looks like one,
    and printable. Mask first and cut then: of a secret that is cut in two, neither half is known."""
    for pattern in (_register.pattern, _pattern(frozenset(secrets)), *_BY_LOOK):
        if pattern is not None:
            text = pattern.sub(MASK, text)
    return text.encode(errors="backslashreplace").decode()


def harmless(text: str) -> str:
    """`masked(text)`, without what would steer a terminal: a server wrote it, or another instance. Lines stay lines,
    and JSON stays the same JSON."""
    return STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", masked(text.replace("\r\n", "\n")))


def shortened(text: str, limit: int) -> str:
    """`masked(text)`, in at most so many characters and a sign that there were more. However long it is, no more of it
    is looked at than is needed: it may be of a stranger."""
    spare = max(_LONGEST_BY_LOOK, _register.longest)
    if len(text) > limit + 2 * spare:
        # At the end may stand a part of a secret, which is not known as one.
        return f"{masked(text[: limit + 2 * spare])[:-spare][:limit]}..."
    text = masked(text)
    return text if len(text) <= limit else f"{text[:limit]}..."


@lru_cache(maxsize=16)
def _pattern(secrets: frozenset[str]) -> re.Pattern[str] | None:
    forms = {form for secret in secrets if len(secret) >= _SHORTEST for form in _forms(secret)}
    if not forms:
        return None
    return re.compile("|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True)))


def _forms(secret: str) -> Iterator[str]:
    """As it is, and as addresses, JSON, Python, HTML and basic authentication write it."""
    raw = secret.encode(errors="surrogatepass")
    for form in (secret, quote(raw, safe=""), quote(raw), quote_plus(raw)):
        yield form
        yield re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), form)
    for quoted in (json.dumps(secret), json.dumps(secret, ensure_ascii=False), repr(secret), ascii(secret)):
        yield quoted[1:-1]
        yield json.dumps(quoted[1:-1])[1:-1]
    yield repr(raw)[2:-1]
    yield html.escape(secret)
    if len(raw) >= _SHORTEST_ENCODED:
        # What is before it ("user:") shifts it by 0, 1 or 2 bytes; these characters depend on it alone.
        for shift in range(3):
            encoded = base64.b64encode(b"\0" * shift + raw).rstrip(b"=").decode()
            own = encoded[-(-shift * 8 // 6) : (shift + len(raw)) * 8 // 6]
            yield own
            yield own.replace("+", "-").replace("/", "_")


def masked_arguments(arguments: Sequence[str]) -> list[str]:
    """A command line without what options with such a name are given, as `--token=X`, `--token X`, `TOKEN=X`,
    `--set consul.token=X`, `-u NAME:X` or `-H "Token: X"`."""
    shown: list[str] = []
    hide = of_user = False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        is_option = argument.startswith("-")
        if hide and not is_option:
            shown.append(MASK)
        elif of_user and ":" in argument:
            shown.append(f"{argument.partition(':')[0]}:{MASK}")
        else:
            shown.append(_masked_argument(argument))
        hide = is_option and not equals and not name.endswith("file") and bool(SECRET_NAME.search(name))
        of_user = argument in ("-u", "--user")
    return shown


_USER = re.compile(r"(?:^|[=.])user=", re.IGNORECASE)


def _masked_argument(argument: str) -> str:
    """`NAME=X`, `--set=NAME=X`, `NAME: X`: nothing after the first name of something secret."""
    at = 0
    for end in re.finditer(r"=|:\s", argument):
        if SECRET_NAME.search(argument, at, end.start()) and not argument.endswith("file", at, end.start()):
            return f"{argument[: end.end()]}{MASK}"
        at = end.end()
    user = _USER.search(argument)
    colon = argument.find(":", user.end()) if user is not None else -1
    return masked(argument) if colon < 0 else f"{masked(argument[: colon + 1])}{MASK}"
