"""The example that the package carries: complete, true, commented; and the schema that goes with it."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from cluster_lock import config
from cluster_lock.config import Settings, example, load, schema

FILE = Path(config.__file__).parent / "example.yaml"


def keys_with_descriptions() -> dict[str, str]:
    found = {}
    for name, info in Settings.model_fields.items():
        found[name] = info.description or ""
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            for key, below in info.annotation.model_fields.items():
                found[f"{name}.{key}"] = below.description or ""
    return found


def test_it_says_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Running with the file as it is, and running without it, is the same."""
    monkeypatch.chdir(tmp_path)
    assert load(FILE, environ={}).model_dump() == load(environ={}).model_dump()


@pytest.mark.parametrize("kind", ["etcd", "consul", "file"])
def test_it_reads_the_variables_that_the_defaults_read(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tools' variables work with the file as they do without it."""
    monkeypatch.chdir(tmp_path)
    environ = {
        "CLUSTER_LOCK_BACKEND": kind,
        "CLUSTER_LOCK_STATE_DIR": "/state",
        "POD_NAME": "pod-1",
        "CONSUL_HTTP_ADDR": "consul:8500",
        "CONSUL_HTTP_TOKEN": "t",
        "CONSUL_CACERT": "/ca",
        "CONSUL_CLIENT_CERT": "/cert",
        "CONSUL_CLIENT_KEY": "/key",
        "ETCDCTL_ENDPOINTS": "e:2379",
        "ETCDCTL_CACERT": "/ca",
        "ETCDCTL_CERT": "/cert",
        "ETCDCTL_KEY": "/key",
        "ETCDCTL_USER": "u",
        "ETCDCTL_PASSWORD": "p",
    }
    with_file, without = load(FILE, environ=environ), load(environ=environ)
    assert with_file.model_dump() == without.model_dump()
    assert with_file.instance == "pod-1"
    section = getattr(with_file, kind)
    assert section != getattr(load(environ={"CLUSTER_LOCK_BACKEND": kind}), kind)


def test_every_key_is_there_with_its_comment() -> None:
    """Each key stands below one comment line, its description, and no key is missing or too much."""
    lines = FILE.read_text(encoding="utf-8").splitlines()
    found = {}
    section = ""
    for above, line in itertools.pairwise(lines):
        if line.strip() and not line.lstrip().startswith("#"):
            key = line.strip().partition(":")[0]
            if not line.startswith(" "):
                section = key
            found[f"{section}.{key}" if line.startswith(" ") else key] = above.strip().removeprefix("# ")
    assert found == keys_with_descriptions()


def test_the_example_is_that_file(checkout: Path) -> None:
    """`config --example` prints it, and config.yaml of the repository, which is there to be filled in, is the same."""
    assert example() == FILE.read_text(encoding="utf-8")
    template = checkout / "config.yaml"
    if not template.exists():
        pytest.skip("a source distribution leaves it out: somebody may have filled it in")
    assert template.read_bytes() == FILE.read_bytes()


def test_the_schema_describes_it() -> None:
    """Every key of the file is in the schema, described, and with the default that the file shows."""
    described: dict[str, Any] = json.loads(schema())
    content = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    descriptions = keys_with_descriptions()
    for name, value in content.items():
        key = described["properties"][name]
        assert key["description"] == descriptions[name]
        if isinstance(value, dict):
            section = described["$defs"][key["$ref"].rpartition("/")[2]]
            assert section["additionalProperties"] is False
            for inner, written in value.items():
                assert section["properties"][inner]["description"] == descriptions[f"{name}.{inner}"]
                default = section["properties"][inner].get("default")
                shown = "off" if written is False and isinstance(default, str) else written  # as YAML takes it
                assert "${" in str(written) or default == shown, (name, inner)
