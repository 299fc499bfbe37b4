"""The documents: what refers to them, and what they refer to, exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.docker import CHECKOUT
from support.shape import ROOMS

import cluster_lock

CODE = ("cluster_lock", "bot", "tests", "benchmarks", "scripts", "deploy", "docs")
KINDS = {".py", ".md", ".yaml", ".yml", ".hcl", ".html"}

CITATION = re.compile(r"(docs/[\w/]+\.md)#([\w-]+)")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
OWN_FILE = re.compile(r"`((?:cluster_lock|tests|docs|scripts|bot|benchmarks|deploy)/[\w./-]*)`")

UNIT = re.compile(r"seconds|clock\.(now|wall)\(\)|times the ttl", re.IGNORECASE)


def anchors(document: Path) -> set[str]:
    """What can stand behind `#`: the headings, as GitHub writes them."""
    headings = re.findall(r"^#+ +(.*)$", FENCE.sub("", document.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def documents() -> Iterator[Path]:
    """Everything that people read here."""
    yield from CHECKOUT.glob("*.md")
    for folder in ("docs", "deploy"):
        yield from (CHECKOUT / folder).rglob("*.md")


def sources() -> Iterator[Path]:
    """What may cite a document."""
    for folder in CODE:
        yield from (path for path in (CHECKOUT / folder).rglob("*") if path.suffix in KINDS and path.is_file())


def test_every_citation_of_a_rule_leads_to_it() -> None:
    """What code, tests and comments cite of a page of docs/ is a heading of that page."""
    cited = [
        (f"{path.relative_to(CHECKOUT)}: {page}#{rule}", CHECKOUT / page, rule)
        for path in sources()
        for page, rule in CITATION.findall(path.read_text(encoding="utf-8"))
    ]
    assert len(cited) > 20
    assert [where for where, page, rule in cited if not page.is_file() or rule not in anchors(page)] == []


def test_every_link_between_the_documents_leads_somewhere() -> None:
    """Each relative link of a document names a file that exists, and a heading in it."""
    dead = []
    for document in documents():
        for target in LINK.findall(FENCE.sub("", document.read_text(encoding="utf-8"))):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, heading = target.partition("#")
            there = (document.parent / name).resolve() if name else document
            if not there.exists() or (heading and heading not in anchors(there)):
                dead.append(f"{document.relative_to(CHECKOUT)}: {target}")
    assert dead == []


def test_the_design_names_files_that_exist() -> None:
    """Each file and folder that the page on the design names is there, so that it can be opened."""
    named = set(OWN_FILE.findall((CHECKOUT / "docs" / "design.md").read_text(encoding="utf-8")))
    assert len(named) > 20
    assert sorted(name for name in named if not (CHECKOUT / name).exists()) == []


def test_the_design_draws_the_rooms_that_there_are() -> None:
    """The picture of the rooms has each room, in the order in which they may import each other."""
    text = (CHECKOUT / "docs" / "design.md").read_text(encoding="utf-8")
    picture = text.partition("\n## The rooms\n")[2].split("```")[1]
    drawn = [name for line in picture.splitlines() for name in re.split(r"[/,] *", line.partition("  ")[0]) if name]
    order = [name for name in ROOMS if name != "__main__"]
    ground = order.index("observer")
    assert drawn[1 : ground + 1] == order[:ground]
    assert sorted(drawn[ground + 1 :]) == sorted(order[ground:])


def test_every_page_is_in_the_index() -> None:
    """The index of the documents names each of them."""
    index = set(LINK.findall((CHECKOUT / "docs" / "README.md").read_text(encoding="utf-8")))
    pages = {path.name for path in (CHECKOUT / "docs").glob("*.md")} - {"README.md"}
    assert pages - index == set()


def test_the_glossary_defines_each_word_once() -> None:
    """No word has two lines in the glossary."""
    text = (CHECKOUT / "docs" / "glossary.md").read_text(encoding="utf-8")
    words = [
        word.strip(" *")
        for line in text.splitlines()
        if line.startswith("| **")
        for word in line.split("|")[1].split(",")
    ]
    assert len(words) > 30
    assert sorted(word for word in words if words.count(word) > 1) == []


@pytest.mark.parametrize(
    "module", ["values/grants.py", "values/record.py", "values/timing.py", "observer.py", "election/leadership.py"]
)
def test_every_field_of_a_public_value_is_explained(module: str) -> None:
    """Each field of the values that users get has a docstring, and each duration or moment says its unit."""
    tree = ast.parse((Path(cluster_lock.__file__).parent / module).read_text(encoding="utf-8"))
    explained, unexplained = 0, []
    for value in (node for node in tree.body if isinstance(node, ast.ClassDef)):
        for field, after in zip(value.body, [*value.body[1:], None], strict=True):
            match field:
                case ast.AnnAssign(target=ast.Name(id=name), annotation=kind):
                    needs_unit = "float" in ast.unparse(kind)
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant()):
                    needs_unit = False
                case _:
                    continue
            explained += 1
            match after:
                case ast.Expr(value=ast.Constant(value=str(text))) if not needs_unit or UNIT.search(text):
                    pass
                case _:
                    unexplained.append(f"{value.name}.{name}")
    assert explained
    assert unexplained == []
