"""Connection strings of libpq, which may hold a password wherever one looks: only what cannot is let through."""

from __future__ import annotations

import re
from urllib.parse import unquote

NO_DSN = "must be a connection string of libpq, such as host=db1,db2 dbname=locks or postgresql://db1,db2/locks"

# What libpq knows and what is no secret.
_HARMLESS = frozenset(
    re.findall(
        r"\w+",
        """
        application_name channel_binding client_encoding connect_timeout dbname fallback_application_name gssdelegation
        gssencmode gsslib host hostaddr keepalives keepalives_count keepalives_idle keepalives_interval krbsrvname
        load_balance_hosts max_protocol_version min_protocol_version options passfile port require_auth requirepeer
        service servicefile ssl ssl_max_protocol_version ssl_min_protocol_version sslcert sslcertmode sslcompression
        sslcrl sslcrldir sslkey sslmode sslnegotiation sslrootcert sslsni target_session_attrs tcp_user_timeout user
        """,
    )
)
# Spaces are those of C, as for libpq.
_PAIR = re.compile(
    r"\s*(?P<name>\w+)\s*=\s*(?!\s)(?P<value>'(?:\\.|[^'\\])*'|(?:\\.|[^\s\\'])*)(?=\s|\Z)",
    re.DOTALL | re.ASCII,
)
_SHOWN = ("host", "hostaddr", "port", "dbname", "user")
_URI = re.compile(
    r"postgres(?:ql)?://(?P<user>[^/?#@\s]*@)?(?P<places>[^/?#@\s]*)(?:/[^/?#@:\s]*)?(?:\?(?P<pairs>[^#\s]*))?"
)
_PLACE = re.compile(r"(?:\[[\w:.%-]+\]|[^:\[\]]*)(?::\d*)?")


def dsn_problem(text: str) -> str | None:
    """What is wrong with it, for its user, and never a word of it; None: nothing that is seen from here."""
    names = _names(text)
    if names is None:
        return NO_DSN
    if any("pass" in name and name not in _HARMLESS for name in names):
        return "must not hold a password: use password_file or password"
    if not _HARMLESS.issuperset(names):
        return "has a parameter that is none of libpq's, or is one for a secret"
    return None


def _names(text: str) -> list[str] | None:
    """Of its parameters, `password` for one that stands in an address; None: it is of no form."""
    if not re.match(r"\s*\w+:", text):
        names, at = [], 0
        while text[at:].strip():
            pair = _PAIR.match(text, at)
            if pair is None:
                return None
            names.append(_name(pair["name"], pair["value"].strip("'")))
            at = pair.end()
        return names
    uri = _URI.fullmatch(text.strip())
    if uri is None or not all(map(_PLACE.fullmatch, uri["places"].split(","))):
        # Where a password has a sign in it that ends an address, it is no address any more.
        return ["password"] if "@" in text else None
    pairs = [pair.partition("=") for pair in (uri["pairs"] or "").split("&") if pair]
    names = [_name(name, unquote(value)) for name, _, value in pairs]
    return [*names, "password"] if ":" in (uri["user"] or "") else names


def _name(name: str, value: str) -> str:
    """`password` for one that hides in a value that is shown: one that was left out takes the next pair for itself, and
    an address in one may have a user. A socket's name may begin with an @."""
    hides = (name in _SHOWN and re.search("=|://", value)) or (name in ("host", "hostaddr") and "@" in value[1:])
    return "password" if hides else name.lower()
