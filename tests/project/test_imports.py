"""Importing stays cheap and the layers stay apart: no framework and no client comes in by the back door."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import session_kit
from tests.harness.sessions import SECRET

ROOT = Path(__file__).parents[2]


def loaded_by(code: str) -> set[str]:
    """The packages and modules that `code` loads in a new interpreter, by their top names; of ours, all."""
    script = f"import sys; before = set(sys.modules)\n{code}\nprint(*sorted(set(sys.modules) - before))"
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment(ROOT), capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    names = result.stdout.split()
    return {name if name.startswith("session_kit") else name.partition(".")[0] for name in names}


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(folder)}


def test_importing_the_package_imports_nothing_else() -> None:
    assert loaded_by("import session_kit") - sys.stdlib_module_names == {"session_kit"}
    assert not loaded_by("import session_kit") & {"asyncio", "logging", "urllib", "importlib.metadata", "sqlite3"}


@pytest.mark.parametrize(
    ("code", "packages"),
    [
        ("session_kit.open_driver('memory://')", set()),
        ("session_kit.open_store('memory://')", {"msgspec"}),
        (f"session_kit.SessionManager('memory://', '{SECRET}').open()['a'] = 1", {"msgspec", "itsdangerous"}),
        ("import session_kit.asgi", {"msgspec", "itsdangerous"}),
        ("from session_kit.testing import ManualClock, Visitor", {"msgspec", "itsdangerous"}),
        ("import session_kit.cli, session_kit.__main__", set()),
    ],
)
def test_what_is_used_loads_what_it_needs_and_no_more(code: str, packages: set[str]) -> None:
    loaded = loaded_by(f"import session_kit\n{code}") - sys.stdlib_module_names
    # msgspec takes typing_extensions where it finds it. What begins with an underscore is of Debian's Python.
    assert {name for name in loaded if not name.startswith(("session_kit", "_"))} - {"typing_extensions"} == packages
    assert "session_kit.drivers.disk" not in loaded


def test_each_public_name_is_there_and_is_shown() -> None:
    assert sorted(set(session_kit.__all__)) == session_kit.__all__
    assert {*session_kit.__all__, "__version__"} <= set(dir(session_kit))
    for name in session_kit.__all__:
        thing = getattr(session_kit, name)
        assert getattr(thing, "__name__", name) == name
        assert getattr(session_kit, name) is thing


def test_each_public_name_is_shown_before_anybody_asked_for_it() -> None:
    loaded = loaded_by("import session_kit; assert {*session_kit.__all__} <= {*dir(session_kit)}")
    assert "session_kit.store" not in loaded


def test_an_unknown_name_is_an_attribute_error_that_names_it() -> None:
    with pytest.raises(AttributeError, match="module 'session_kit' has no attribute 'Sesion'"):
        _ = session_kit.Sesion  # type: ignore[attr-defined]
    with pytest.raises(ImportError, match="Sesion"):
        exec("from session_kit import Sesion", {})  # noqa: S102


# --- the layers ---


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    return subprocess.run(
        [sys.executable, "-c", command, "--no-cache"],
        env=environment(folder),
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.links
def test_the_layers_are_kept() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


@pytest.mark.links
@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("drivers/base.py", "from session_kit.store import UnstorageSessionStore", "Drivers know nothing of sessions"),
        ("drivers/memory.py", "from session_kit.errors import SessionError", "Drivers know nothing of sessions"),
        ("session_kit/codec/json.py", "from session_kit.session import Session", "Arrows point down"),
        ("session_kit/store.py", "import starlette", "The core knows no framework and no client"),
        ("drivers/memory.py", "import redis.asyncio", "The core knows no framework and no client"),
    ],
)
def test_an_import_that_points_up_or_out_is_found(module: str, line: str, contract: str, tmp_path: Path) -> None:
    waste = shutil.ignore_patterns("__pycache__")
    for name in ("session_kit", "benchmarks", "drivers"):
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=waste)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / module).open("a") as file:
        file.write(f"\n\ndef late() -> None:\n    {line}\n")
    result = lint(tmp_path)
    assert result.returncode == 1, result.stdout + result.stderr
    (verdict,) = [text for text in result.stdout.splitlines() if text.startswith(contract) and "BROKEN" in text]
    assert verdict


def test_no_module_reaches_into_another_ones_underscore_names() -> None:
    links = (ROOT / "session_kit" / "drivers", ROOT / "session_kit" / "benchmarks")
    files = [
        file
        for folder in ("session_kit", "drivers", "benchmarks")
        for file in (ROOT / folder).rglob("*.py")
        if not any(link in file.parents for link in links)
    ]
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in files}
    own = {file: private_names(tree) for file, tree in trees.items()}
    assert sum(map(len, own.values())) > 200
    of_others = {"_replace", "_connection"}  # of named tuples, and of the Redis store of starsessions
    reached = [
        f"{file.relative_to(ROOT)}:{line} {name}"
        for file, tree in trees.items()
        for line, name in names_reached(tree)
        if name not in own[file] | of_others and any(name in names for other, names in own.items() if other != file)
    ]
    assert reached == []


def private_names(tree: ast.AST) -> set[str]:
    """The underscore names that a module makes."""
    names = {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
    names |= {
        node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
    }
    names |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


def names_reached(tree: ast.AST) -> list[tuple[int, str]]:
    """The names after a dot, but not those that an object asks of itself, and the names imported from our modules."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) not in ("self", "cls", "super()"):
            found.append((node.lineno, node.attr))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("session_kit"):
            found += [(node.lineno, alias.name) for alias in node.names]
    return found
