"""What the etcd driver refuses before it sends anything: nonsense settings, unusable files, the wrong library."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from support.aio import run
from support.certs import Authority

import cluster_lock
from cluster_lock.drivers.etcd import EtcdDriver
from cluster_lock.drivers.etcd.library import load
from cluster_lock.errors import ConfigError, PermissionRefused


@pytest.mark.parametrize(
    ("endpoints", "access", "problem"),
    [
        ([], {}, "at least one endpoint"),
        (["ftp://a:2379"], {}, "must look like http://host:2379"),
        (["http://"], {}, "must look like"),
        (["http://a:2379/v3"], {}, "must look like"),
        (["http://a:99999"], {}, "port must be a number"),
        (["http://a:port"], {}, "port must be a number"),
        (["http://me:pa55word@a:2379"], {}, "must not carry a user or password"),
        (["2379"], {}, "must look like"),
        (["http:/a:2379"], {}, "must look like"),
        (["http://a:2379"], {"ca": "/ca.crt"}, "in the clear although ca is given"),
        (["http://a:2379"], {"user": "me", "password": "pa55word"}, "in the clear although user and password are"),
        (["https://a:2379", "http://b:2379"], {}, "http://b:2379 would be spoken to in the clear"),
        (["https://a:2379", "http://10.0.0.1"], {"ca": "/ca.crt"}, "http://10.0.0.1:2379 would be spoken to in the"),
        (["https://a:2379"], {"cert": "/c.crt"}, "both of cert and key"),
        (["http://a:2379"], {"user": "me"}, "both of user and password"),
        (["http://a:2379"], {"password": "pa55word"}, "both of user and password"),
        (["http://a:2379"], {"prefix": ""}, "prefix must not be empty"),
    ],
)
def test_nonsense_is_refused_at_once(endpoints: list[str], access: dict[str, Any], problem: str) -> None:
    """What cannot work is refused before anything is sent, in words that hold no password."""
    with pytest.raises(ConfigError, match=problem) as caught:
        EtcdDriver(endpoints, request_timeout=1.0, **access)
    assert "pa55word" not in str(caught.value)


def test_every_problem_is_told_at_once() -> None:
    """Two wrong endpoints and half a certificate make three problems, not one."""
    with pytest.raises(ConfigError) as caught:
        EtcdDriver(["ftp://a", "http://b/c"], key="/c.key", request_timeout=1.0)
    assert len(caught.value.problems) == 3


def test_backend_is_named_without_credentials() -> None:
    """The backend's name for people has every address, its default port filled in, and no user or password."""
    driver = EtcdDriver(["a.example", "http://[::1]:2380"], user="locker", password="pa55word", request_timeout=1.0)
    assert driver.backend == "etcd https://a.example:2379,http://[::1]:2380"
    assert "pa55word" not in repr(driver)


@pytest.mark.parametrize("here", ["127.0.0.1", "127.8.9.10", "localhost", "[::1]"])
def test_this_host_may_be_spoken_to_in_the_clear(here: str) -> None:
    """An address of this host is http if it says so, or says nothing, any other is https and whatever is
    shown."""
    addresses = [f"http://{here}:1", f"{here}:1", "https://a:1", "a"]
    driver = EtcdDriver(addresses, user="me", password="pa55word", request_timeout=1.0)
    assert driver.backend == f"etcd http://{here}:1,http://{here}:1,https://a:1,https://a:2379"
    bare = EtcdDriver([here], request_timeout=1.0)
    assert bare.backend == f"etcd http://{here}:2379"


# -- TLS files ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    authority = Authority(tmp_path)
    cert, key = authority.issue("client")
    return {"ca": authority.ca, "cert": cert, "key": key}


def open_with(files: dict[str, Path]) -> None:
    access: dict[str, Any] = {**files}
    run(EtcdDriver(["https://127.0.0.1:2379"], request_timeout=1.0, **access).open())


def test_good_files_need_no_server(files: dict[str, Path]) -> None:
    """With files that can be used the driver opens, whether anybody listens or not."""
    open_with(files)


@pytest.mark.parametrize("name", ["ca", "cert", "key"])
@pytest.mark.parametrize("fault", ["missing", "folder", "garbage"])
def test_unusable_file_is_named(files: dict[str, Path], name: str, fault: str) -> None:
    """A CA, certificate or key that is missing, a folder or no PEM is told at once, with its path."""
    files[name].unlink()
    if fault == "folder":
        files[name].mkdir()
    elif fault == "garbage":
        files[name].write_text("-----BEGIN NONSENSE-----\n")
    with pytest.raises(ConfigError, match=str(files[name])):
        open_with(files)


def test_key_of_another_certificate(files: dict[str, Path], tmp_path: Path) -> None:
    """A key that does not belong to the certificate is told at once."""
    _, files["key"] = Authority(tmp_path / "other").issue("client")
    with pytest.raises(ConfigError, match="cert"):
        open_with(files)


def test_encrypted_key_asks_nobody(files: dict[str, Path]) -> None:
    """A key with a passphrase is told at once, instead of asking for it at the terminal."""
    key = serialization.load_pem_private_key(files["key"].read_bytes(), None)
    files["key"].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"passphrase"),
        )
    )
    terminal, stdin = os.openpty()
    try:
        # In a session without a terminal of its own OpenSSL asks at the standard input.
        answer = python(
            f"""
            import asyncio
            from cluster_lock.drivers.etcd import EtcdDriver
            from cluster_lock.errors import ConfigError
            files = {{"cert": {str(files["cert"])!r}, "key": {str(files["key"])!r}}}
            try:
                asyncio.run(EtcdDriver(["https://127.0.0.1:2379"], request_timeout=1.0, **files).open())
            except ConfigError as error:
                print(error)
            """,
            stdin=stdin,
        )
        assert str(files["key"]) in answer
    finally:
        os.close(terminal)
        os.close(stdin)


@pytest.mark.parametrize("name", ["ca", "key"])
def test_rights_of_a_file(files: dict[str, Path], name: str) -> None:
    """A file that we may not read is a matter of permission, with its path."""
    for folder in files[name].parents:
        if folder.stat().st_uid == os.geteuid() and folder.is_relative_to(tempfile.gettempdir()):
            folder.chmod(folder.stat().st_mode | 0o111)
    files[name].chmod(0)
    for other in files.keys() - {name}:
        files[other].chmod(0o444)
    load()  # as somebody who may read our site-packages
    with unprivileged(), pytest.raises(PermissionRefused, match=str(files[name])):
        open_with(files)


@contextmanager
def unprivileged() -> Iterator[None]:
    """As somebody whom file modes stop; root reads everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


# -- the library -------------------------------------------------------------------------------------------------------


def python(code: str, *, path: Path | None = None, bare: bool = False, stdin: int = subprocess.DEVNULL) -> str:
    """What a fresh Python prints; `bare`: one in which nothing is installed. `path`: a folder of further packages."""
    with tempfile.TemporaryDirectory() as ours:
        # The library without what is installed beside it: where it is tested, it is installed itself.
        Path(ours, "cluster_lock").symlink_to(Path(cluster_lock.__file__).parent)
        answer = subprocess.run(
            [sys.executable, "-W", "error", *(["-S"] if bare else []), "-c", textwrap.dedent(code)],
            env={"PYTHONPATH": os.pathsep.join([ours, *([str(path)] if path else [])]), "PATH": os.environ["PATH"]},
            stdin=stdin,
            start_new_session=True,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()


OPEN = """
    import asyncio
    from cluster_lock.drivers.etcd import EtcdDriver
    from cluster_lock.errors import DriverMissing
    driver = EtcdDriver(["http://127.0.0.1:2379"], request_timeout=1.0)
    try:
        asyncio.run(driver.open())
    except DriverMissing as error:
        (problem,) = error.problems
        print(problem)
    else:
        print("opened")
"""


def installed(folder: Path, name: str, version: str, **modules: str) -> None:
    """Put a distribution into `folder`, with modules as their source."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    for module, source in modules.items():
        file = folder / f"{module.replace('.', '/')}.py"
        file.parent.mkdir(exist_ok=True)
        file.write_text(source)


def test_import_loads_no_client_library() -> None:
    """Naming the driver costs nothing: grpc, protobuf and etcd3 are loaded when it is opened."""
    heavy = "{'grpc', 'etcd3', 'google.protobuf'}"
    code = f"import sys; from cluster_lock.drivers.etcd import EtcdDriver; print({heavy} & set(sys.modules))"
    assert python(code) == "set()"


def test_library_opens_with_warnings_as_errors() -> None:
    """Loading the real library raises no warning that `-W error` would make fatal."""
    assert python(OPEN) == "opened"


def test_no_library() -> None:
    """With nothing installed the message says what to install."""
    assert "pip install 'cluster-lock[etcd]'" in python(OPEN, bare=True)


def test_two_distributions_of_one_module(tmp_path: Path) -> None:
    """Two distributions that ship the module etcd3 are both named, although one of them could be imported."""
    installed(tmp_path, "etcd3", "0.12.0")
    installed(tmp_path, "cslab-etcd3", "0.12.1")
    answer = python(OPEN, path=tmp_path, bare=True)
    assert "cslab-etcd3 0.12.1 and etcd3 0.12.0" in answer
    assert "uninstall" in answer


def test_distribution_without_its_files(tmp_path: Path) -> None:
    """A distribution whose files another one's uninstallation took away is to be installed again."""
    installed(tmp_path, "grpcio", "1.85.1", **{"grpc.__init__": "", "grpc.aio": ""})
    installed(tmp_path, "cslab-etcd3", "0.12.1")
    answer = python(OPEN, path=tmp_path, bare=True)
    assert "pip install --force-reinstall --no-deps cslab-etcd3" in answer


def test_library_without_grpc(tmp_path: Path) -> None:
    """The stubs without grpc: the message names what is missing."""
    installed(tmp_path, "cslab-etcd3", "0.12.1")
    assert "No module named 'grpc'" in python(OPEN, path=tmp_path, bare=True)


@pytest.mark.parametrize(
    ("complaint", "told"),
    [
        ("Descriptors cannot be created directly.\nIf this call came from a _pb2.py file, ...", "protobuf 7.36.2"),
        ("Couldn't build proto file into descriptor pool: duplicate file name kv.proto", "another etcd library"),
        ("Couldn't build proto file into descriptor pool!\nduplicate symbol 'mvccpb.KeyValue'", "another etcd library"),
        ("something new", "something new"),
    ],
)
def test_stubs_that_cannot_be_built(tmp_path: Path, complaint: str, told: str) -> None:
    """Stubs too old for the installed protobuf, or beside another etcd library: one sentence with the way out."""
    installed(tmp_path, "grpcio", "1.85.1", **{"grpc.__init__": "", "grpc.aio": ""})
    installed(tmp_path, "protobuf", "7.36.2")
    installed(tmp_path, "etcd3", "0.12.0", **{"etcd3.__init__": "", "etcd3.etcdrpc": f"raise TypeError({complaint!r})"})
    answer = python(OPEN, path=tmp_path, bare=True)
    assert told in answer
    assert "\n" not in answer
    assert answer.startswith(("etcd3 0.12.0 cannot", "the etcd driver cannot"))
