"""The model of the protocol and what is said of it: every rule has its line, and what a line names exists."""

from __future__ import annotations

import ast
import re
import tomllib
from typing import Any

import pytest
from support.docker import CHECKOUT
from support.mutants import MUTANTS

MODEL = CHECKOUT / "docs" / "model"
TOLD: dict[str, list[dict[str, Any]]] = tomllib.loads((MODEL / "rules.toml").read_text(encoding="utf-8"))
RULES = TOLD["rule"]
TEXT = "\n".join(module.read_text(encoding="utf-8") for module in sorted(MODEL.glob("*.tla")))
SWITCH = re.compile(r'Rule\("([^"]+)"\)|Stands\(s, "([^"]+)"')
ROW = re.compile(
    r"^\| (?P<name>[a-z ]+) \| (?P<breaks>.+?) \| (?P<length>\d+|open) \| (?P<tests>.+?) \| (?P<mutants>.+?) \|$",
    re.MULTILINE,
)


def switches() -> set[str]:
    """The rules that the model asks for."""
    return {one or other for one, other in SWITCH.findall(TEXT)}


def test_every_switch_of_the_model_has_its_rule() -> None:
    """Each rule that the model can switch off is described once, and each that is described can be switched off."""
    names = [rule["name"] for rule in RULES]
    assert len(names) == len(set(names))
    assert set(names) == switches()


@pytest.mark.parametrize("kind", ["world", "rule"])
def test_what_can_be_seen_is_compared(kind: str) -> None:
    """There are worlds in which the model must do only what `Seen` allows, and rules without which it must do more."""
    assert len([each for each in TOLD[kind] if each.get("seen")]) > 1


def test_the_table_is_of_these_rules() -> None:
    """docs/reliability.md has a line for each rule, in order, with its words, its tests and its mutants."""
    page = (CHECKOUT / "docs" / "reliability.md").read_text(encoding="utf-8")
    _, _, table = page.partition("<!-- rules: written")
    rows = [row.groupdict() for row in ROW.finditer(table.partition("<!-- rules: end")[0])]
    assert [(row["name"], row["breaks"]) for row in rows] == [(rule["name"], rule["breaks"]) for rule in RULES]
    for row, rule in zip(rows, RULES, strict=True):
        assert re.findall(r"`([^`]+)`", row["tests"]) == rule["tests"]
        assert re.findall(r"`([^`]+)`", row["mutants"]) == rule["mutants"]


@pytest.mark.parametrize("rule", [pytest.param(rule, id=rule["name"]) for rule in RULES])
def test_what_a_rule_names_exists(rule: dict[str, Any]) -> None:
    """Its configuration, its tests and its mutants."""
    assert (MODEL / f"{rule['in']}.cfg").is_file()
    assert set(rule["mutants"]) <= set(MUTANTS)
    assert rule["tests"]
    for test in rule["tests"]:
        file, _, name = test.partition("::")
        tree = ast.parse((CHECKOUT / file).read_text(encoding="utf-8"))
        known = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert not name or name in known
