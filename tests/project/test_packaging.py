"""What is published holds what it needs and nothing else, and works where it is installed."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from trove_classifiers import classifiers as known_classifiers

from session_kit.drivers import registry
from session_kit.drivers.errors import DISTRIBUTION

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
FOLDERS: dict[str, str] = PROJECT["tool"]["setuptools"]["package-dir"]
WASTE = shutil.ignore_patterns(
    ".git", ".*cache", ".venv*", ".hypothesis", ".sesskey", "build", "dist", "site", "*.egg-info", "__pycache__"
)


def run(*arguments: object, python: object = sys.executable) -> str:
    """Run an interpreter with `arguments` and return what it printed."""
    # Not in the repository, where a folder `build` would hide the module.
    command = list(map(str, (python, *arguments)))
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT.anchor)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout.strip()


def build(source: Path, folder: Path, *kinds: str) -> Path:
    run("-m", "build", "--no-isolation", *kinds, "--outdir", folder, source)
    return folder


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packages(root: Path) -> dict[str, Path]:
    """Each folder with an `__init__.py` that is imported as part of `session_kit`, by its dotted name, links or not."""

    def walk(name: str, folder: Path) -> Iterator[tuple[str, Path]]:
        yield name, folder
        for child in folder.iterdir():
            if not child.is_symlink() and (child / "__init__.py").is_file():
                yield from walk(f"{name}.{child.name}", child)

    return {name: folder for top, where in FOLDERS.items() for name, folder in walk(top, root / where)}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository, so that no build folder is left in it and none that lies in it is packed."""
    return Path(shutil.copytree(ROOT, tmp_path_factory.mktemp("clone") / "tree", symlinks=True, ignore=WASTE))


@pytest.fixture(scope="module")
def linkless(tree: Path) -> Path:
    """A clone as git makes it on Windows: in the place of a link is a file with the target's name in it."""
    clone = Path(shutil.copytree(tree, tree.parent / "linkless", symlinks=True))
    for name in ("benchmarks", "drivers"):
        link = clone / "session_kit" / name
        link.unlink(missing_ok=True)
        link.write_text(f"../{name}")
    return clone


@pytest.fixture(scope="module")
def built(tree: Path) -> Path:
    """The folder with one wheel and one sdist."""
    return build(tree, tree.parent / "built", "--wheel", "--sdist")


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (wheel,) = built.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def sdist(built: Path) -> Path:
    (sdist,) = built.glob("*.tar.gz")
    return sdist


@pytest.fixture(scope="module")
def unpacked(sdist: Path) -> Path:
    shutil.unpack_archive(sdist, sdist.parent / "unpacked", filter="data")
    (source,) = (sdist.parent / "unpacked").iterdir()
    return source


# --- what is inside ---


def test_the_wheel_holds_what_users_run_and_nothing_else(wheel: Path, tree: Path) -> None:
    expected = {
        f"{name.replace('.', '/')}/{file.name}"
        for name, folder in packages(tree).items()
        if "maintainers" not in name
        for file in folder.iterdir()
        if file.suffix in (".py", ".html", ".typed")
    }
    names = {name for name in contents(wheel) if ".dist-info/" not in name}
    assert names == expected
    assert names >= {"session_kit/drivers/base.py", "session_kit/demo/page.html", "session_kit/py.typed"}
    assert names >= {"session_kit/benchmarks/bench.py", "session_kit/testing/conformance.py"}
    assert not [name for name in names if re.search("peer|growth|target|profile|results|png", name)]


def test_nothing_that_is_shipped_imports_what_is_not() -> None:
    for name, folder in packages(ROOT).items():
        if "maintainers" not in name:
            for file in folder.glob("*.py"):
                imports = re.findall(r"^\s*(?:from|import) (\S+)", file.read_text(encoding="utf-8"), re.MULTILINE)
                assert not [one for one in imports if "maintainers" in one or one.startswith("tests")], file


def test_the_wheel_carries_the_licence_the_command_and_the_plugin(wheel: Path) -> None:
    files = contents(wheel)
    (licence,) = [text for name, text in files.items() if name.endswith(".dist-info/licenses/LICENSE")]
    assert licence == (ROOT / "LICENSE").read_bytes()
    (entries,) = [text for name, text in files.items() if name.endswith(".dist-info/entry_points.txt")]
    assert b"session-kit = session_kit.cli:main" in entries
    assert b"session_kit = session_kit.pytest_plugin" in entries


def test_the_sdist_is_the_whole_project(sdist: Path, tree: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    here = {
        str(file.relative_to(tree)).replace(os.sep, "/")
        for file in tree.rglob("*")
        if file.is_file() and not any(part.is_symlink() for part in file.parents)
    }
    only_here = {name for name in here - names if "egg-info" not in name and not name.startswith("build/")}
    # What only a clone needs, and, without symbolic links, what git puts in their place.
    assert only_here <= {".gitignore", "session_kit/benchmarks", "session_kit/drivers"}
    assert names >= {"tests/conftest.py", "tests/harness/apps/flask_app.py", "tests/ecosystem/flask.txt", ".ci/run"}


def test_a_wheel_made_from_the_sdist_is_the_same(unpacked: Path, wheel: Path, tmp_path: Path) -> None:
    assert contents(build(unpacked, tmp_path, "--wheel") / wheel.name) == contents(wheel)


def test_a_clone_without_symbolic_links_builds_the_same_wheel(linkless: Path, wheel: Path, tmp_path: Path) -> None:
    assert contents(build(linkless, tmp_path, "--wheel") / wheel.name) == contents(wheel)


# --- that it works where it is installed ---

IMPORTS = """
import session_kit.drivers, session_kit.benchmarks.bench, session_kit.cli, session_kit.testing, importlib.resources
store = session_kit.open_store('memory://')
store.set('sid', {'user': 'ada'})
assert store.get('sid') == {'user': 'ada'}
assert importlib.resources.files('session_kit.demo').joinpath('page.html').is_file()
print(session_kit.drivers.__file__)
"""


def install_into(folder: Path, *arguments: object) -> None:
    quiet = ["--quiet", "--no-index", "--no-deps", "--no-compile", "--no-build-isolation"]
    run("-m", "pip", "install", *quiet, "--target", folder, *arguments)


def editable(source: Path, folder: Path) -> Path:
    """The interpreter of an environment in which `source` is installed as editable, and all that is installed here.

    Ours lends its packages as a plain path, so that its own editable install of this library counts nothing there.
    """
    venv.create(folder, symlinks=os.name != "nt")
    (site,) = folder.glob("lib/python*/site-packages") if os.name != "nt" else [folder / "Lib" / "site-packages"]
    install_into(site, "--editable", source)
    (site / "ours.pth").write_text(str(Path(pytest.__file__).parents[1]))
    return programs(folder) / "python"


def programs(folder: Path) -> Path:
    return folder / ("Scripts" if os.name == "nt" else "bin")


def test_what_is_installed_works_without_the_repository(wheel: Path, tmp_path: Path) -> None:
    install_into(tmp_path, wheel)
    assert not (tmp_path / "drivers").exists()
    printed = run("-I", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{IMPORTS}")
    assert Path(printed) == tmp_path / "session_kit" / "drivers" / "__init__.py"


def test_a_package_in_an_archive_brings_all_that_it_reads(wheel: Path) -> None:
    """As `zipapp` and serverless platforms have it: there is no folder with files beside the modules."""
    code = f"import sys; sys.path.insert(0, {str(wheel)!r}); from session_kit.demo import page; print(page.__file__)"
    assert Path(run("-I", "-c", code)).is_relative_to(wheel)


def test_an_editable_install_of_a_clone_without_symbolic_links_works(linkless: Path, tmp_path: Path) -> None:
    printed = run("-c", IMPORTS, python=editable(linkless, tmp_path))
    assert Path(printed) == linkless / "drivers" / "__init__.py"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("environments")
    yield folder
    shutil.rmtree(folder)


OPENED = {
    "disk": ("disk://{folder}/store", "session_kit.drivers.disk"),
    "redis": ("redis://127.0.0.1:1", "session_kit.drivers.redis.driver"),
    "postgres": ("postgresql://127.0.0.1:1/none", "session_kit.drivers.postgres.driver"),
    "s3": ("s3://bucket?region=us-east-1", "session_kit.drivers.s3"),
    "fsspec": ("fsspec+memory://x", "session_kit.drivers.fsspec"),
}
OPEN = """
import session_kit
driver = session_kit.open_driver({!r})
assert type(driver).__module__ == {!r}, type(driver)
driver.close()
"""
CODEC = """
from session_kit.codec import make_codec
codec = make_codec({!r})
text = "x" * 5000
assert codec.load(codec.unpack(codec.pack({{"a": codec.dump(text, "a")}}, "k"), "k")["a"], str) == text
"""
CODECS = {"crypto": "json+encrypt:KEY", "zstd": "json+zstd"}
TESTED = """
from session_kit.drivers.memory import MemoryDriver
from session_kit.testing import DriverConformance

class TestMemory(DriverConformance):
    def open_driver(self, clock, tmp_path):
        return MemoryDriver(clock=clock)

def test_the_plugin(session_store):
    session_store.set("sid", {"user": "ada"})
"""


@pytest.mark.slow
@pytest.mark.parametrize("extra", ["", *EXTRAS])
def test_each_extra_alone_brings_all_that_it_needs(
    extra: str, wheel: Path, environment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = environment / (extra or "bare")
    venv.create(folder, symlinks=os.name != "nt")
    python, command = programs(folder) / "python", programs(folder) / "session-kit"
    run("-m", "pip", "--python", python, "install", "--quiet", f"{wheel}[{extra}]" if extra else wheel)
    monkeypatch.setenv("KEY", secrets.token_hex(32))
    run("-c", OPEN.format(f"sqlite://{tmp_path}/store.db", "session_kit.drivers.sqlite"), python=python)
    for name, (url, module) in OPENED.items():
        if extra in (name, "all"):
            run("-c", OPEN.format(url.format(folder=tmp_path), module), python=python)
    for name, codec in CODECS.items():
        if extra in (name, "all"):
            run("-c", CODEC.format(codec), python=python)
    if extra in ("cli", "bench", "all"):
        run("demo", "--check", "--store", "memory://", python=command)
    if extra == "bench":
        picture = tmp_path / "found.png"
        run("bench", "memory://", "--seconds", "0.001", "--rounds", "1", "--plot", picture, python=command)
        assert picture.read_bytes().startswith(b"\x89PNG")
    if extra == "testing":
        file = tmp_path / "test_mine.py"
        file.write_text(TESTED)
        assert " passed" in run("-m", "pytest", "-q", "-p", "no:cacheprovider", file, python=python)
    assert len(run("secret", python=command)) > 40


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["unpacked", "linkless"])
def test_an_unpacked_sdist_and_a_clone_without_symbolic_links_can_be_tested(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    def tests(python: object, root: Path, *arguments: str) -> str:
        command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
        result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
        return result.stdout

    def collected(python: object, root: Path) -> set[str]:
        return {line for line in tests(python, root, "--collect-only").splitlines() if "::" in line}

    source: Path = request.getfixturevalue(kind)
    python = editable(source, tmp_path)
    assert collected(python, source) == collected(sys.executable, ROOT)
    assert " passed" in tests(python, source, "tests/session/test_cookie.py", "tests/drivers/test_memory.py")


# --- what it says of itself ---


def test_a_package_index_will_take_it(built: Path) -> None:
    run("-m", "twine", "check", "--strict", *built.glob("*.*"))


def test_the_wheel_is_in_good_order(wheel: Path) -> None:
    run("-m", "check_wheel_contents", wheel)


def test_pyroma_gives_ten_of_ten(sdist: Path) -> None:
    assert "Final rating: 10/10" in run("-m", "pyroma", sdist)


def test_the_metadata_name_each_thing_that_exists(wheel: Path) -> None:
    (text,) = [text.decode() for name, text in contents(wheel).items() if name.endswith(".dist-info/METADATA")]
    metadata = Parser().parsestr(text)
    assert metadata["Name"] == DISTRIBUTION == PROJECT["project"]["name"]
    assert set(metadata.get_all("Classifier", [])) <= known_classifiers
    assert set(metadata.get_all("Provides-Extra", [])) == EXTRAS.keys()
    assert {"Homepage", "Documentation", "Changelog", "Issues", "Source"} <= PROJECT["project"]["urls"].keys()


def test_no_tool_of_developers_is_an_extra() -> None:
    published = {Requirement(line).name for lines in EXTRAS.values() for line in lines}
    groups: dict[str, list[Any]] = PROJECT["dependency-groups"]
    tools = {Requirement(line).name for name in ("check", "servers", "peers", "dist") for line in groups[name]}
    assert not published & tools
    assert not EXTRAS.keys() & groups.keys()


def test_no_package_is_forgotten_in_the_list() -> None:
    found = {name for name in packages(ROOT) if "maintainers" not in name}
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == found


def test_each_extra_that_a_message_names_exists() -> None:
    named = {extra for _, extra in registry._builtin.values() if extra}
    for folder in FOLDERS.values():
        for path in (ROOT / folder).rglob("*.py"):
            named.update(re.findall(r"\bhow_to_install\(['\"](\w+)['\"]\)", path.read_text(encoding="utf-8")))
    assert named >= {"disk", "bench", "cli", "crypto", "zstd"}
    assert named <= EXTRAS.keys()


def test_the_version_is_said_once_and_the_same_everywhere() -> None:
    version = PROJECT["project"]["version"]
    assert f'__version__ = "{version}"' in (ROOT / "session_kit" / "__init__.py").read_text()
    changes = (ROOT / "CHANGELOG.md").read_text()
    released = re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", changes, re.MULTILINE)
    assert released or f"## [Unreleased]\n\nThe first release, {version}.\n" in changes


def test_the_changelog_has_the_form_of_keep_a_changelog() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert changes.startswith("# Changelog\n")
    assert re.findall(r"^## (.*)$", changes, re.MULTILINE)[0] == "[Unreleased]"
    kinds = set(re.findall(r"^### (.*)$", changes, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
