"""Variables as settings: `CLUSTER_LOCK_<SECTION>__<KEY>`, the tools' own ones as defaults, `${VAR}` in the file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping

from .known_keys import KEYS, SECTIONS, unknown
from .source_tree import Layer, Node, Place, Problems, Written

PREFIX = "CLUSTER_LOCK_"
TOKEN = "TELEGRAM_BOT_TOKEN"

_TOOLS = {
    "instance": "POD_NAME",
    "file.directory": "CLUSTER_LOCK_STATE_DIR",
    "etcd.endpoints": "ETCDCTL_ENDPOINTS",
    "etcd.ca": "ETCDCTL_CACERT",
    "etcd.cert": "ETCDCTL_CERT",
    "etcd.key": "ETCDCTL_KEY",
    "etcd.user": "ETCDCTL_USER",
    "etcd.password": "ETCDCTL_PASSWORD",
    "consul.url": "CONSUL_HTTP_ADDR",
    "consul.token": "CONSUL_HTTP_TOKEN",
    "consul.token_file": "CONSUL_HTTP_TOKEN_FILE",
    "consul.ca": "CONSUL_CACERT",
    "consul.cert": "CONSUL_CLIENT_CERT",
    "consul.key": "CONSUL_CLIENT_KEY",
    "redis.password": "REDISCLI_AUTH",
}
"""The variables that the backends' own tools read, and Kubernetes sets."""


class Variables(dict[str, Node]):
    """The environment above `.env`."""

    def __init__(self, environ: Mapping[str, str], dotenv: Mapping[str, Node]) -> None:
        super().__init__(dotenv)
        for name, value in environ.items():
            if value or name not in dotenv:  # an empty one hides nothing: Compose hands on `NAME=` for what nobody set
                self[name] = Node(value, Place(Layer.ENVIRONMENT, name))
        # As Consul's own tools read it: never back to http where TLS was asked for (api.go).
        if self.text("CONSUL_HTTP_SSL").lower() in ("1", "t", "true") and (given := self.text("CONSUL_HTTP_ADDR")):
            named = [each.strip().removeprefix("http://") for each in given.split(",")]
            secure = ",".join(each if "://" in each else f"https://{each}" for each in named)
            self["CONSUL_HTTP_ADDR"] = Node(secure, self["CONSUL_HTTP_ADDR"].place)

    def text(self, name: str) -> str:
        """The value of a variable; "" if there is none."""
        return str(self[name].value) if name in self else ""

    def for_tools(self) -> Written:
        """What the tools' variables say, as if a file below all others referred to them."""
        return {
            path: Node(self.text(name), Place(Layer.DEFAULT, name), filled=True)
            for path, name in _TOOLS.items()
            if self.text(name)
        }

    def sections(self) -> set[str]:
        """The sections that our own variables speak of."""
        ours = [name.removeprefix(PREFIX).lower() for name in self if name.startswith(PREFIX)]
        return {name.partition("__")[0] for name in ours if "__" in name}

    def for_us(self, foreign: Collection[str], problems: Problems) -> Written:
        """What our own variables say. An empty one counts as not set: Compose and CI make those."""
        found: Written = {"telegram.token": self[TOKEN]} if self.text(TOKEN) else {}
        for name, node in self.items():
            if not name.startswith(PREFIX) or not node.value:
                continue
            section, double, key = name.removeprefix(PREFIX).lower().partition("__")
            path = f"{section}.{key}" if double else section
            if path in KEYS or (double and section in foreign):
                found[path] = node
            elif wrong := _misspelt(section, key, double):
                problems.add(node.place, path, wrong)
        return found


def _misspelt(section: str, key: str, double: str) -> str | None:
    """Not every variable that begins like ours is a setting, but one with `__`, or a near miss, was meant as one, and
    so was a key whose section is missing, or has one `_` behind it."""
    if double and section in SECTIONS:
        return unknown(key, SECTIONS[section])
    if double:
        return unknown(section, SECTIONS)
    if meant := [path for path in KEYS if section in (path.partition(".")[2], path.replace(".", "_"))]:
        return f"is no setting, did you mean {' or '.join(PREFIX + path.upper().replace('.', '__') for path in meant)}?"
    names = [path for path in KEYS if "." not in path]
    return unknown(section, names) if difflib.get_close_matches(section, names, n=1, cutoff=0.8) else None


_REFERENCE = re.compile(r"\$(\$)?\{([^}]*)(\}?)")
_INSIDE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:(:-)(.*))?", re.DOTALL)


def filled(node: Node, variables: Variables, problems: Problems, path: str) -> Node | None:
    """`node` with `${VAR}` and `${VAR:-default}` filled in; `$${` is a plain `${`. None after a problem in a value."""
    if isinstance(node.value, dict):
        children = {key: filled(child, variables, problems, f"{path}.{key}") for key, child in node.value.items()}
        return Node({key: child for key, child in children.items() if child is not None}, node.place)
    if isinstance(node.value, list):
        items = [filled(child, variables, problems, path) for child in node.value]
        return None if None in items else Node([item for item in items if item is not None], node.place)
    wrong: list[str] = []

    def fill(reference: re.Match[str]) -> str:
        escaped, body, end = reference.groups()
        if escaped:
            return reference[0][1:]
        inside = _INSIDE.fullmatch(body)
        if not end or inside is None or "${" in body:
            wrong.append("has a ${ that is neither ${NAME} nor ${NAME:-default}; write $${ for a plain one")
            return ""
        name, has_default, default = inside.groups()
        if has_default or name in variables:
            return variables.text(name) or default or ""
        wrong.append(f"the variable {name} is not set; ${{{name}:-default}} gives a default")
        return ""

    text = _REFERENCE.sub(fill, node.value)
    for problem in dict.fromkeys(wrong):
        problems.add(node.place, path, problem)
    return None if wrong else Node(text, node.place, node.plain, filled=text != node.value)
