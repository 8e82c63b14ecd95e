"""The pages become a site without a network, none of their links is broken, and what they say of the code is true."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, get_args
from urllib.parse import urlsplit

import pytest

import session_kit
from docs import hooks
from session_kit.drivers import registry
from session_kit.drivers.errors import DISTRIBUTION
from session_kit.drivers.postgres import PostgresDriver
from session_kit.drivers.postgres.settings import client_options
from session_kit.errors import __all__ as errors
from session_kit.manager import ManagerOptions
from session_kit.policy import EventName
from session_kit.store import OWN_OPTIONS, UnstorageSessionStore

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
REFERENCE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")


def build(source: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """Build the site as `make docs` does."""
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    result = build(ROOT, folder)
    assert result.returncode == 0, result.stdout + result.stderr
    return folder


class Loaded(HTMLParser):
    """What a browser would fetch to show a page."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = {"script": "src", "img": "src", "link": "href", "iframe": "src"}
        if url := dict(attrs).get(names.get(tag, "")):
            self.urls.append(url)


def test_a_page_loads_nothing_from_elsewhere_and_all_that_it_loads_is_there(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = Loaded()
        loaded.feed(page.read_text(encoding="utf-8"))
        for url in map(urlsplit, loaded.urls):
            assert not url.netloc, (page, url)
            if url.scheme != "data" and page.name != "404.html":
                target = page.parent / url.path
                assert (target / "index.html" if target.is_dir() else target).is_file(), (page, url)


@pytest.mark.parametrize(
    "link", ["[a](nowhere.md)", "[a](limits.md#nowhere)", "![a](../nowhere.png)", "[a](../nowhere.py)"]
)
def test_a_broken_link_fails_the_build(tmp_path: Path, link: str) -> None:
    (tmp_path / "docs").mkdir()
    for name in ("docs/hooks.py", "docs/style.css"):
        (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"))
    (tmp_path / "docs" / "limits.md").write_text(f"# Limits\n\n{link}\n")
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[0]
    (tmp_path / "mkdocs.yml").write_text(f"{settings}\nnav: [limits.md]\n")
    result = build(tmp_path, tmp_path / "site")
    assert result.returncode != 0
    assert "nowhere" in result.stderr


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: page.name)
def test_each_test_and_file_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for path, function in re.findall(r"`((?:tests|benchmarks|drivers|examples)/[\w./-]*)(?:::(\w+))?`", text):
        assert (ROOT / path).exists(), path
        if function:
            assert f"def {function}(" in (ROOT / path).read_text(encoding="utf-8"), (path, function)


def classes_of_the_reference() -> list[Any]:
    return [hooks.find(path) for path in re.findall(r"^<!-- options (\S+) -->$", REFERENCE, re.MULTILINE)]


def test_the_tables_of_the_reference_are_those_of_the_code(pytestconfig: pytest.Config) -> None:
    now = hooks.write_tables(REFERENCE)
    if pytestconfig.getoption("--write-tables"):
        (ROOT / "docs" / "reference.md").write_text(now, encoding="utf-8")
    else:
        assert now == REFERENCE, "pytest --write-tables writes them"


@pytest.mark.parametrize("cls", classes_of_the_reference(), ids=lambda cls: cls.__name__)
def test_each_option_of_a_url_is_in_the_reference_with_its_meaning(cls: Any) -> None:
    rows = {name: meaning for name, _, _, meaning in hooks.option_rows(cls)}
    assert all(rows.values())
    known = OWN_OPTIONS if cls is UnstorageSessionStore else cls.url_options(urlsplit("any://host"))
    others = client_options() if cls is PostgresDriver else []
    assert rows.keys() == known.keys() - set(others)


def test_no_driver_is_missing_in_the_reference() -> None:
    drivers = {hooks.find(name.replace(":", ".")) for name, _ in registry._builtin.values()}
    assert set(classes_of_the_reference()) == drivers | {UnstorageSessionStore}


def test_the_reference_names_each_event_and_each_error(site: Path) -> None:
    table = REFERENCE.partition("## Events")[2].partition("## Errors")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == sorted(get_args(EventName))
    built = (site / "reference" / "index.html").read_text(encoding="utf-8")
    assert all(f"<code>{name}</code>" in built for name in errors)


def test_each_setting_is_in_the_reference(site: Path) -> None:
    rows = re.findall(r"^\| `(\w+)` \|", hooks.settings(), re.MULTILINE)
    assert rows == ["store", "secret", *ManagerOptions.__annotations__]


def test_the_api_page_has_each_public_name(site: Path) -> None:
    built = (site / "api" / "index.html").read_text(encoding="utf-8")
    for name in session_kit.__all__:
        if name not in errors and name != "ABSENT":
            assert f'id="{name.lower()}"' in built, name
    for unreadable in (":::", "ForwardRef", "Expect.", "object at 0x"):
        assert unreadable not in built


def test_all_pages_install_one_distribution() -> None:
    found = set()
    for page in [ROOT / "README.md", *PAGES]:
        found |= set(re.findall(r"pip install '?(session[\w-]+)", page.read_text(encoding="utf-8")))
    assert found == {DISTRIBUTION}
