"""Variables as settings: `CLUSTER_LOCK_<SECTION>__<KEY>`, the tools' own ones as defaults, `${VAR}` in the file."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping

from .places import Branch, Items, Layer, Leaf, Node, Place, Problems
from .shape import shape, unknown

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
}
"""The variables that the backends' own tools read, and Kubernetes sets: they are defaults."""

Variables = Mapping[str, tuple[str, Place]]


def environment(environ: Mapping[str, str]) -> Variables:
    return {name: (value, Place(Layer.ENVIRONMENT, name, says_path=True)) for name, value in environ.items()}


def as_tools_read_them(variables: Variables) -> Variables:
    """CONSUL_HTTP_SSL makes addresses without a scheme https, and http too, as it does for Consul's own tools (api.go:
    never back to http where TLS was asked for)."""
    addresses, place = variables.get("CONSUL_HTTP_ADDR", ("", None))
    says, _ = variables.get("CONSUL_HTTP_SSL", ("", None))
    if place is None or not addresses or says.lower() not in ("1", "t", "true"):
        return variables
    named = [each.strip().removeprefix("http://") for each in addresses.split(",")]
    secure = [each if "://" in each else f"https://{each}" for each in named]
    return {**variables, "CONSUL_HTTP_ADDR": (",".join(secure), place)}


def tool_defaults(variables: Variables, backend: str) -> Branch:
    """Defaults from the tools' variables; only the chosen backend's: Consul's may be anything where etcd is used."""
    tree = Branch({})
    for path, name in _TOOLS.items():
        section = path.partition(".")[0]
        value, _ = variables.get(name, ("", None))
        if value and section in ("instance", backend):
            _put(tree, path, Leaf(value, Place(Layer.DEFAULT, name)))
    return tree


def sections_named(variables: Variables) -> set[str]:
    """The sections, and backends, that our own variables speak of."""
    ours = {name.removeprefix(PREFIX).lower() for name in variables if name.startswith(PREFIX)}
    backend, _ = variables.get(f"{PREFIX}BACKEND", ("", None))
    return {backend, *(name.partition("__")[0] for name in ours if "__" in name)}


def from_variables(variables: Variables, foreign: Collection[str], problems: Problems) -> Branch:
    """What our own variables say. An empty one counts as not set: Compose and CI make those."""
    tree = Branch({})
    if TOKEN in variables and variables[TOKEN][0]:
        _put(tree, "telegram.token", Leaf(*variables[TOKEN]))
    for name, (value, place) in variables.items():
        if not name.startswith(PREFIX) or not value:
            continue
        section, double, key = name.removeprefix(PREFIX).lower().partition("__")
        path = f"{section}.{key}" if double else section
        if shape().key(path) or (double and section in foreign):
            _put(tree, path, Leaf(value, place))
        elif wrong := _misspelt(section, key, double):
            problems.add(place, path, wrong)
    return tree


def _misspelt(section: str, key: str, double: str) -> str | None:
    """Not every variable that begins like ours is a setting, but one with `__`, or a near miss, was meant as one, and
    so was a key whose section is missing, or has one `_` behind it."""
    known = shape().keys
    if not double and (
        meant := [path for path in shape().paths() if section in (path.partition(".")[2], path.replace(".", "_"))]
    ):
        return f"is no setting, did you mean {' or '.join(PREFIX + path.upper().replace('.', '__') for path in meant)}?"
    if double and isinstance(keys := known.get(section), Mapping):
        return unknown(key, keys)
    names = [name for name, below in known.items() if bool(double) == isinstance(below, Mapping)]
    if double or difflib.get_close_matches(section, names, n=1, cutoff=0.8):
        return unknown(section, names)
    return None


def from_overrides(overrides: Mapping[str, str], foreign: Collection[str], problems: Problems) -> Branch:
    """What the command line says, by dotted path."""
    tree = Branch({})
    place = Place(Layer.COMMAND_LINE, "command line")
    for path, value in overrides.items():
        if shape().key(path) or path.partition(".")[0] in foreign:
            _put(tree, path, Leaf(value, place))
        else:
            problems.add(place, path, unknown(path, shape().paths()))
    return tree


def _put(tree: Branch, path: str, leaf: Leaf) -> None:
    section, _, key = path.partition(".")
    if not key:
        tree.children[section] = leaf
    else:
        branch = tree.children.setdefault(section, Branch({}, leaf.place))
        if isinstance(branch, Branch):
            branch.children[key] = leaf


_REFERENCE = re.compile(r"\$(\$)?\{([^}]*)(\}?)")
_INSIDE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:(:-)(.*))?", re.DOTALL)


def interpolated(node: Node, variables: Variables, problems: Problems, path: str = "") -> Node | None:
    """`node` with `${VAR}` and `${VAR:-default}` filled in; `$${` is a plain `${`. None after a problem in a value."""
    if isinstance(node, Branch):
        children = {
            key: interpolated(child, variables, problems, f"{path}.{key}" if path else key)
            for key, child in node.children.items()
        }
        return Branch({key: child for key, child in children.items() if child is not None}, node.place)
    if isinstance(node, Items):
        items = [interpolated(child, variables, problems, path) for child in node.children]
        return None if None in items else Items([item for item in items if item is not None], node.place)
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
        value, _ = variables.get(name, ("", None))
        if not value and has_default:
            return default or ""
        if name not in variables:
            wrong.append(f"the variable {name} is not set; ${{{name}:-default}} gives a default")
        return value

    text = _REFERENCE.sub(fill, node.text)
    for problem in dict.fromkeys(wrong):
        problems.add(node.place, path, problem)
    return None if wrong else Leaf(text, node.place, node.plain, filled=text != node.text)
