"""What is published holds what it needs and nothing else, and works where it is installed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from session_kit.drivers import registry

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
WASTE = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")


def run(*arguments: object) -> str:
    """Run this interpreter with `arguments` and return what it printed."""
    # Not in the repository, where a folder `build` would hide the module.
    command = [sys.executable, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT.anchor)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.strip()


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository, so that no build folder is left in it and none that lies in it is packed."""
    return Path(shutil.copytree(ROOT, tmp_path_factory.mktemp("clone") / "tree", symlinks=True, ignore=WASTE))


@pytest.fixture(scope="module")
def built(tree: Path) -> Path:
    """The folder with one wheel and one sdist."""
    run("-m", "build", "--no-isolation", "--wheel", "--sdist", "--outdir", tree.parent / "built", tree)
    return tree.parent / "built"


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (wheel,) = built.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def sdist(built: Path) -> Path:
    (sdist,) = built.glob("*.tar.gz")
    return sdist


def test_the_wheel_holds_each_file_of_the_package_and_nothing_else(wheel: Path, tree: Path) -> None:
    package = {
        os.path.relpath(os.path.join(folder, name), tree).replace(os.sep, "/")
        for folder, _, names in os.walk(tree / "session_kit", followlinks=True)
        for name in names
        if "benchmarks/results" not in folder
    }
    names = {name for name in contents(wheel) if ".dist-info/" not in name}
    assert names == package
    assert names >= {"session_kit/drivers/base.py", "session_kit/demo/page.html", "session_kit/py.typed"}


def test_the_wheel_carries_the_licence_and_the_command(wheel: Path) -> None:
    files = contents(wheel)
    (licence,) = [text for name, text in files.items() if name.endswith(".dist-info/licenses/LICENSE")]
    assert licence == (ROOT / "LICENSE").read_bytes()
    (scripts,) = [text for name, text in files.items() if name.endswith(".dist-info/entry_points.txt")]
    assert b"session-kit = session_kit.cli:main" in scripts


def test_the_sdist_holds_the_sources_and_no_half_of_the_tests(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= {"drivers/base.py", "session_kit/asgi.py", "session_kit/demo/page.html", "session_kit/py.typed"}
    assert names >= {"README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml"}
    assert not [name for name in names if name.startswith(("tests", "build", "."))]


def test_a_wheel_made_from_the_sdist_is_the_same(sdist: Path, wheel: Path, tmp_path: Path) -> None:
    shutil.unpack_archive(sdist, tmp_path, filter="data")
    (source,) = tmp_path.iterdir()
    run("-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path / "built", source)
    assert contents(tmp_path / "built" / wheel.name) == contents(wheel)


def test_a_clone_without_symbolic_links_builds_the_same_wheel(tree: Path, wheel: Path, tmp_path: Path) -> None:
    """On Windows git leaves a file in the place of a link, with the target's name in it."""
    clone = shutil.copytree(tree, tmp_path / "clone", symlinks=True)
    for name in ("benchmarks", "drivers"):
        link = clone / "session_kit" / name
        target = os.readlink(link)
        link.unlink()
        link.write_text(target)
    run("-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path / "built", clone)
    assert contents(tmp_path / "built" / wheel.name) == contents(wheel)


def test_what_is_installed_works_without_the_repository(wheel: Path, tmp_path: Path) -> None:
    run("-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile", "--target", tmp_path, wheel)
    assert not (tmp_path / "drivers").exists()
    printed = run(
        "-I",
        "-c",
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import session_kit.drivers, session_kit.cli, session_kit.testing, importlib.resources\n"
        "store = session_kit.open_store('memory://')\n"
        "store.set('sid', {'user': 'ada'})\n"
        "assert store.get('sid') == {'user': 'ada'}\n"
        "assert importlib.resources.files('session_kit.demo').joinpath('page.html').is_file()\n"
        "print(session_kit.drivers.__file__)\n",
    )
    assert Path(printed) == tmp_path / "session_kit" / "drivers" / "__init__.py"


def test_no_package_is_forgotten_in_the_list() -> None:
    folders = {
        os.path.relpath(folder, ROOT).replace(os.sep, ".")
        for folder, _, names in os.walk(ROOT / "session_kit", followlinks=True)
        if "__init__.py" in names
    }
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == folders


def test_each_extra_that_a_message_names_exists() -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    named = {extra for _, extra in registry._builtin.values() if extra}
    for folder in ("session_kit", "drivers"):
        for path in (ROOT / folder).rglob("*.py"):
            named.update(re.findall(r"session-kit\[(\w+)\]", path.read_text()))
    assert "disk" in named
    assert named <= extras.keys()


def test_the_version_is_said_once_and_the_same_everywhere() -> None:
    version = PROJECT["project"]["version"]
    assert f'__version__ = "{version}"' in (ROOT / "session_kit" / "__init__.py").read_text()
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()
