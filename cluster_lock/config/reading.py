"""Reading config.yaml and .env: into values that know their lines, whatever a file holds."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from .source_tree import Layer, Node, Place, Problems

LARGEST_FILE = 256 * 1024
_MOST_VALUES = 10_000
_DEEPEST = 10


def read_text(path: Path, layer: Layer, problems: Problems, *, others_too: bool = False) -> str | None:
    """The text of a file, or None after saying why there is none. `others_too`: what is no UTF-8 in it may be none of
    ours, and is left as it is."""
    place = Place(layer, str(path))
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        problems.add(place, "", f"cannot be read: {getattr(error, 'strerror', None) or error}")
        return None
    if len(raw) > LARGEST_FILE:
        problems.add(place, "", f"is larger than {LARGEST_FILE // 1024} KiB")
        return None
    try:
        return raw.decode("utf-8-sig", errors="surrogateescape" if others_too else "strict")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        problems.add(Place(layer, f"{path}:{line}", line), "", "is not UTF-8 text")
        return None


def read_yaml(path: Path, problems: Problems) -> dict[str, Node]:
    """What stands in config.yaml; what is wrong in it is said, and the rest returned."""
    text = read_text(path, Layer.FILE, problems)
    return {} if text is None else _Reader(path, problems).read(text)


class _Reader:
    def __init__(self, path: Path, problems: Problems) -> None:
        self._path = path
        self._problems = problems
        self._left = _MOST_VALUES

    def _place(self, line: int) -> Place:
        return Place(Layer.FILE, f"{self._path}:{line}", line)

    def read(self, text: str) -> dict[str, Node]:
        line, wrong = 1, ""
        try:
            # The pure Python loader: the one in C has no limit for its own stack.
            root = yaml.compose(text, yaml.SafeLoader)
            tree = None if root is None else self._node(root, "", 0)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, wrong = mark.line + 1 if mark else 1, _said(error.problem or error.context)
        except yaml.reader.ReaderError as error:
            line, wrong = text.count("\n", 0, int(error.position)) + 1, "holds a character that YAML does not allow"
        except (RecursionError, _TooMuch):
            wrong = f"is nested too deeply, or has more than {_MOST_VALUES} values"
        except (ValueError, OverflowError):  # PyYAML, of "\UFFFFFFFF"
            wrong = "holds an escape that names no character"
        else:
            if tree is None or tree.value == "":
                return {}
            if isinstance(tree.value, dict):
                return tree.value
            wrong = "must be a mapping, lines such as `backend: file`"
        self._problems.add(self._place(line), "", wrong)
        return {}

    def _node(self, node: yaml.Node, path: str, depth: int) -> Node | None:
        # Aliases may repeat a node without end: "billion laughs", or a list that contains itself.
        self._left -= 1
        if self._left < 0 or depth > _DEEPEST:
            raise _TooMuch
        place = self._place(node.start_mark.line + 1)
        if not node.tag.startswith("tag:yaml.org,2002:") or ":python/" in node.tag:
            self._problems.add(place, path, "has a YAML tag, which is not allowed here")
            return None
        if isinstance(node, yaml.MappingNode):
            return Node(self._mapping(node, path, depth), place)
        if isinstance(node, yaml.SequenceNode):
            children = [self._node(child, f"{path}.{number}", depth + 1) for number, child in enumerate(node.value)]
            return Node([child for child in children if child is not None], place)
        plain = isinstance(node, yaml.ScalarNode) and node.style is None
        # YAML 1.1 takes `no`, `1:30` and `0x1` for other things than a text; what a value means, its key says.
        return Node("" if plain and node.value in ("~", "null", "Null", "NULL") else node.value, place, plain)

    def _mapping(self, node: yaml.MappingNode, path: str, depth: int) -> dict[str, Node]:
        children: dict[str, Node] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            place = self._place(key_node.start_mark.line + 1)
            if not isinstance(key_node, yaml.ScalarNode):
                self._problems.add(place, path, "has a key that is not a text")
                continue
            key: str = key_node.value
            below = f"{path}.{key}" if path else key
            if key in lines:
                self._problems.add(place, below, f"is there twice, first in line {lines[key]}")
                continue
            lines[key] = place.line
            child = self._node(value_node, below, depth + 1)
            if child is not None:  # an empty value has the line after it
                children[key] = Node("", place, child.plain) if child.value == "" else child
        return children


class _TooMuch(Exception):
    pass


def _said(problem: str | None) -> str:
    """PyYAML's own words, without what it quotes from the file (that may be a secret) unless it is a character."""
    return "is not YAML: " + re.sub(r"(['\"]).{4,}?\1", "...", problem or "unexpected end")


# The parser of python-dotenv is not used: what it offers in public tells neither lines nor what is wrong, and it reads
# "\$" and '\' otherwise, so that passwords would change.
_LINE = re.compile(
    r"""[ \t]*(?:export[ \t]+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*(?:
        (?:"(?P<double>(?:[^"\\]|\\.)*)"|'(?P<single>[^']*)')[ \t\r]*(?:\#[^\n]*)?$|(?P<open>["'])|(?P<bare>[^\n]*))""",
    re.DOTALL | re.MULTILINE | re.VERBOSE,
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r"}
_OURS = re.compile(r"CLUSTER_LOCK|TELEGRAM_BOT_TOKEN")


def read_dotenv(path: Path, problems: Problems) -> dict[str, Node]:
    """NAME=VALUE lines: `export` in front, '...' as it stands, "..." with backslashes, both over several lines, `#`
    begins a comment. The file is the whole project's: a line that is something else, and not about us, is left out."""
    variables: dict[str, Node] = {}
    text = read_text(path, Layer.DOTENV, problems, others_too=True) or ""
    start, line = 0, 1
    while start < len(text):
        end = text.find("\n", start) + 1 or len(text)
        found = _LINE.match(text, start)
        # A quote that begins by a slip, and ends at the next one, must not take what is ours in between.
        if found and not found["open"] and not _OURS.search(text, end, found.end()):
            place = Place(Layer.DOTENV, f"{path}:{line}: {found['name']}", line)
            variables[found["name"]] = Node(_dotenv_value(found), place)
            end = text.find("\n", found.end()) + 1 or len(text)
        elif _OURS.search(text, start, end) and not text[start:end].lstrip().startswith("#"):
            wrong = "has a quote that does not end" if found else "is not NAME=VALUE"
            problems.add(Place(Layer.DOTENV, f"{path}:{line}", line), "", wrong)
        line += text.count("\n", start, end)
        start = end
    return variables


def _dotenv_value(found: re.Match[str]) -> str:
    if found["bare"] is not None:
        return re.split(r"(?:^|\s)#", found["bare"].strip(), maxsplit=1)[0].rstrip()
    double = re.sub(r"\\(.)", lambda escape: _ESCAPES.get(escape[1], escape[1]), found["double"] or "", flags=re.DOTALL)
    return double or found["single"] or ""
