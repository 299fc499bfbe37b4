"""What a build takes out of a checkout in use: all that is the project's, and nothing that is its user's."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.docker import CHECKOUT, Docker
from support.used_checkout import MODULES, PLANTED, tracked_files, used_checkout

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the wheel and the source distribution of a checkout in use."""
    if not (CHECKOUT / "cluster_lock/__init__.py").exists():
        pytest.skip("runs where the checkout is whole")
    folder = tmp_path_factory.mktemp("used")
    checkout = used_checkout(folder / "checkout")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-t", "wheel", "-d", str(folder / "dist")]
    subprocess.run(build, cwd=checkout, check=True, capture_output=True, timeout=300)
    return folder / "dist"


def contents(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Each file of a wheel or of a source distribution, by its name below the root."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for name in wheel.namelist():
                yield name, wheel.read(name)
    else:
        with tarfile.open(archive) as sdist:
            for member in sdist:
                file = sdist.extractfile(member)
                if file is not None:
                    yield member.name.partition("/")[2], file.read()


def the(kind: str, folder: Path) -> Path:
    (found,) = folder.glob(kind)
    return found


@pytest.mark.parametrize("kind", ["*.whl", "*.tar.gz"])
def test_a_distribution_carries_nothing_of_its_builder(built: Path, kind: str) -> None:
    """Neither a filled-in config.yaml nor a secret, a key or a note that lies in the checkout is in what is built."""
    found = dict(contents(the(kind, built)))
    assert len(found) > 100
    assert [name for name, content in found.items() if PLANTED in content] == []


def test_the_wheel_has_the_whole_library(built: Path) -> None:
    """Each file of the library that belongs to the repository is in the wheel."""
    tracked = tracked_files()
    if tracked is None:
        pytest.skip("runs in a repository")
    library = {name for name in tracked if name.startswith("cluster_lock/")}
    assert library - {name for name, _ in contents(the("*.whl", built))} == set()


def test_the_source_distribution_is_the_repository(built: Path) -> None:
    """It has every file of the repository but config.yaml, so that anybody who packages it can test and deploy from
    it."""
    tracked = tracked_files()
    if tracked is None:
        pytest.skip("runs in a repository")
    missing = tracked - {name for name, _ in contents(the("*.tar.gz", built))}
    assert {name for name in missing if not name.endswith(".gitignore")} == {"config.yaml"}


def test_a_stranger_in_the_source_distribution_is_told(built: Path) -> None:
    """It has no file that the repository does not know but Python modules, which are told here: commit or move them."""
    tracked = tracked_files()
    if tracked is None:
        pytest.skip("runs in a repository")
    found = {name for name, _ in contents(the("*.tar.gz", built))}
    assert found - tracked == {"PKG-INFO", *MODULES}


@pytest.mark.slow
def test_the_source_distribution_can_be_tested(built: Path, tmp_path: Path) -> None:
    """All tests are found where it is unpacked, and those of the configuration pass there."""
    with tarfile.open(the("*.tar.gz", built)) as sdist:
        sdist.extractall(tmp_path, filter="data")
    (root,) = tmp_path.iterdir()
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "CLUSTER_LOCK_"))
    }
    of_its_own = f"--basetemp={tmp_path / 'pytest'}"
    pytest_there = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", of_its_own]
    for arguments in (["--collect-only", "tests"], ["tests/test_config/test_example.py"]):
        done = subprocess.run(
            [*pytest_there, *arguments],
            cwd=root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.docker
def test_an_image_is_built_from_the_project_alone(docker: Docker, tmp_path: Path) -> None:
    """What a build hands to the docker daemon, which keeps it, holds no secret of the checkout either."""
    checkout = used_checkout(tmp_path / "checkout")
    (checkout / "Everything").write_text("FROM scratch\nCOPY . /\n")
    image, container = "cluster-lock-local/context", "cluster-lock-test-context"
    docker.run("docker", "build", "--quiet", "-f", str(checkout / "Everything"), "-t", image, str(checkout))
    try:
        docker.run("docker", "create", "--name", container, image, "none")
        docker.run("docker", "export", "--output", str(tmp_path / "context.tar"), container)
    finally:
        docker.run("docker", "rm", "--force", container)
        docker.run("docker", "rmi", image)
    with tarfile.open(tmp_path / "context.tar") as context:
        found = {member.name: context.extractfile(member) for member in context if member.isfile()}
        assert {"pyproject.toml", "bot/__main__.py", "cluster_lock/config/example.yaml"} <= set(found)
        packages = {name for name in tracked_files() or () if name.startswith(("bot/", "cluster_lock/"))}
        assert packages - set(found) == set()
        assert [name for name, file in found.items() if file and PLANTED in file.read()] == []
