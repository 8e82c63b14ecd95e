"""One URL chooses the store: what is wrong with it is said in one clear line, without secrets and before it opens."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path, PureWindowsPath
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import SplitResult, quote, unquote, urlsplit

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from session_kit import ConfigError, open_driver, open_store, register_driver
from session_kit.drivers import registry
from session_kit.drivers.disk import DiskDriver
from session_kit.drivers.file import FileDriver
from session_kit.drivers.memory import MemoryDriver
from session_kit.drivers.sqlite import SQLiteDriver
from session_kit.drivers.support import folder
from session_kit.drivers.support.folder import named_in, url_of
from session_kit.drivers.support.options import Duration, Size, parse_duration, parse_size
from session_kit.testing import ManualClock

if TYPE_CHECKING:
    from watchers_of_nobody import Watcher

ROOT = Path(__file__).parents[2]


class Options(MemoryDriver):
    """A driver with an option of each type that a URL can give."""

    def __init__(
        self,
        *,
        text: str = "",
        count: int = 0,
        ratio: float | None = None,
        safe: bool = False,
        wait: Duration = Duration(1.0),
        room: Size | None = None,
        on_error: Callable[[], None] | None = None,
        clock: Callable[[], float],
    ) -> None:
        super().__init__(clock=clock)
        self.given = {"text": text, "count": count, "ratio": ratio, "safe": safe, "wait": wait, "room": room}


@pytest.fixture(autouse=True)
def schemes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {"options": Options})


def python(code: str, *folders: Path) -> str:
    """Run `code` in a new interpreter and return what it printed."""
    path = os.pathsep.join(str(folder) for folder in (*folders, ROOT))
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def listed(*more: str) -> str:
    known = ", ".join(f"{scheme}://" for scheme in sorted({*registry._builtin, *more}))
    return f"{known}, and with the extra 'fsspec' what fsspec knows (gs://, az://, sftp:// ...)"


def error_of(url: Any, opener: Callable[[Any], object] = open_store) -> str:
    with pytest.raises(ConfigError) as caught:
        opener(url)
    return str(caught.value)


# --- each mistake has its line ---


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redos://host", "no driver for redos://; did you mean redis://? Known: " + listed("options")),
        ("/var/lib/app", "a store URL needs a scheme, like memory:// or disk:///var/lib/app"),
        ("", "a store URL needs a scheme"),
        ("memory", "a store URL needs a scheme"),
        ("memory:", "a store URL needs a scheme"),
        ("disk:/var/lib/app", "a store URL needs a scheme"),
        ("memory://#prefix=a", "memory://: '#' starts a fragment, which means nothing here; write it as %23"),
        ("memory://[", "the store URL cannot be parsed"),
        # What would silently open another store than the one that is meant.
        *((f"{quote}disk:///x{quote}", "the store URL has a quote at its end") for quote in ("'", '"')),
        *((f"disk:///x{quote}", "the store URL has a quote at its end") for quote in ("'", '"')),
        *((f"disk:///x{end}y", "the store URL has a line end or a tab in it") for end in ("\n", "\r\n", "\t")),
        *((f"{url}{mark}ttl=7d", "options begin with '?'") for url in ("disk:///x", "redis://host") for mark in "&;"),
        ("memory://?prefix=shop?ttl=7d", "memory://: '?' begins the options once"),
        ("simplecache::file:///x", "a store URL needs a scheme"),
        ("sqlite:///:memory:", "sessions that lie in memory alone are memory://"),
        ("disk:///$EMPTY/x", "the variable EMPTY of the environment is empty"),
        ("disk:///${EMPTY}/x", "the variable EMPTY of the environment is empty"),
        (None, "a store URL must be a str, not NoneType"),
        (b"memory://", "a store URL must be a str, not bytes"),
        (5, "a store URL must be a str, not int"),
        (
            "memory://?prefx=shop",
            "memory://: unknown option 'prefx'; did you mean 'prefix'? Valid options: codec, max_entries, prefix, ttl.",
        ),
        ("redi://localhost", "no driver for redi://; did you mean redis://? Known: disk://, "),
        ("memroy://", "did you mean memory://?"),
        ("zzz://", "no driver for zzz://. Known: disk://, "),
        (
            "redis://localhost:99999",
            "redis://localhost:99999: that is not a host with a port: a port is a number up to 65535",
        ),
        ("redis+cluster://a:6379,b:70000", "a port is a number up to 65535"),
        ("disk:///~/shop", f"'~' means nothing in a URL; write the path in full, as disk://{Path.home()}/shop"),
        ("file:///~", f"'~' means nothing in a URL; write the path in full, as file://{Path.home()}"),
        (
            "memory://?codec=jsn",
            "memory://: codec: there is no 'jsn'; did you mean 'json'? There are json, json-lenient, ",
        ),
        ("memory://?codec=pickle", "codec: there is no 'pickle'. There are json, json-lenient, json-tagged"),
        ("memory://?max_age=5", "unknown option 'max_age'; did you mean 'ttl'? Valid"),
        ("memory://?key_prefix=a", "unknown option 'key_prefix'; did you mean 'prefix'? Valid"),
        ("memory://?tll=7d", "did you mean 'ttl'? Valid options: codec, max_entries, prefix, ttl."),
        ("memory://?max_entrys=5", "did you mean 'max_entries'?"),
        ("memory://?zzz=5", "memory://: unknown option 'zzz'. Valid options: codec, max_entries, prefix, ttl."),
        ("memory://?clock=5", "unknown option 'clock'"),
        ("memory://?=5", "unknown option ''"),
        ("disk:///x?path=/y", "unknown option 'path'. Valid options: codec, prefix, size_limit, timeout, ttl."),
        ("memory://?max_entries=5&max_entries=6", "memory://: the option 'max_entries' is given twice; keep one"),
        ("memory://?ttl=5&ttl=5", "memory://: prefix, ttl, codec may be given once each"),
        ("memory://?prefix=a&ttl=5&prefix=b", "memory://: prefix, ttl, codec may be given once each"),
        ("memory://?ttl=0", "memory://: ttl: a duration must be above 0 and finite, not '0'"),
        ("memory://?ttl=0.0d", "above 0"),
        ("memory://?ttl=-1", "memory://: ttl: '-1' is not a duration like 30s, 15m, 12h or 7d"),
        ("memory://?ttl=abc", "memory://: ttl: 'abc' is not a duration"),
        ("memory://?ttl=", "memory://: ttl: '' is not a duration"),
        ("memory://?ttl=inf", "'inf' is not a duration"),
        ("memory://?ttl=1e5", "'1e5' is not a duration"),
        ("memory://?ttl=" + "9" * 400, "a duration must be above 0 and finite"),
        ("memory://?prefix=", "memory://: prefix must be a text of at least one character"),
        ("memory://?prefix=" + "x" * 469, "memory://: prefix and id together: a key must have 1 to 512 UTF-8 bytes"),
        ("memory://?max_entries=x", "memory://: max_entries: 'x' is not a whole number"),
        ("memory://?max_entries=1.5", "max_entries: '1.5' is not a whole number"),
        ("memory://?max_entries=0", "max_entries must be at least 1, not 0"),
        ("memory://a/b", "memory://a/b: a name, like memory://shop, has no slash in it"),
        ("disk:///x?size_limit=2Gi B", "disk:///x: size_limit: '2Gi B' is not a size like 64KB, 10MiB or 2GiB"),
        ("disk:///x?size_limit=0", "a size must be between 1 byte and 8 EiB, not '0'"),
        ("disk:///x?size_limit=8388608TiB", "a size must be between 1 byte and 8 EiB"),
        ("disk:///x?size_limit=" + "9" * 400, "a size must be between 1 byte and 8 EiB"),
        ("disk:///x?timeout=0", "disk:///x: timeout: a duration must be above 0"),
        ("disk://", "three slashes in all: disk:///var/lib/app"),
        ("disk:///", "three slashes in all"),
        ("disk://var/lib/app", "three slashes in all"),
        ("options://?safe=maybe", "options://: safe: 'maybe' is neither yes nor no"),
        ("options://?ratio=1k", "options://: ratio: '1k' is not a number"),
        ("options://?wait=-1s", "options://: wait: '-1s' is not a duration"),
        ("options://?room=1PB", "options://: room: '1PB' is not a size"),
        ("options://?on_error=print", "unknown option 'on_error'"),
    ],
)
def test_each_mistake_in_a_url_has_its_line(url: Any, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMPTY", "")
    text = error_of(url)
    assert message in text
    assert "\n" not in text


def test_a_misspelt_option_of_the_driver_alone_is_guessed_too() -> None:
    assert "did you mean 'max_entries'? Valid options: max_entries." in error_of("memory://?max_entris=1", open_driver)


@pytest.mark.parametrize(
    "query",
    ["ttl=0", "ttl=abc", "prefix=", "prefix=" + "x" * 500, "ttl=1&ttl=2", "size_limit=0", "timeout=x", "zzz=1"],
)
def test_nothing_is_made_on_disk_for_a_url_that_is_wrong(query: str, tmp_path: Path) -> None:
    error_of(f"disk://{tmp_path}/store?{query}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a%00b", "\ud800", "x" * 300, "file/below"])
def test_a_folder_that_no_system_can_make_is_a_clear_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be" in error_of(f"disk://{tmp_path}/{name}")


def test_a_folder_is_no_sqlite_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder; name a file in it, like"):
        open_driver(f"sqlite://{tmp_path}").prepare()


# --- what is right opens, as meant ---


@pytest.mark.parametrize("blank", ["\n", "\r\n", " ", "\t\n"])
def test_blanks_around_a_url_are_no_part_of_a_name(blank: str, tmp_path: Path) -> None:
    with closing(open_driver(f"{blank}disk://{tmp_path}/store{blank}")) as driver:
        driver.prepare()
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert open_store(f"memory://?prefix=shop{blank}").prefix == "shop"


def test_a_plus_in_an_option_is_a_plus() -> None:
    assert open_driver("options://?text=hunter2+x").given["text"] == "hunter2+x"  # type: ignore[attr-defined]
    assert open_store("memory://?prefix=a+b").prefix == "a+b"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("90s", 90),
        ("500ms", 0.5),
        ("15m", 900),
        ("12h", 43200),
        ("7d", 604800),
        ("2w", 1209600),
        ("1.5h", 5400),
        ("0.25", 0.25),
        (" 7 d ", 604800),
        ("7D", 604800),
        ("7%20d", 604800),
        ("7+d", 604800),
    ],
)
def test_durations_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert open_store(f"memory://?ttl={text}").ttl == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("1", 1),
        ("1024", 1024),
        ("10b", 10),
        ("64KB", 64_000),
        ("64kb", 64_000),
        ("64K", 65_536),
        ("10MiB", 10 * 2**20),
        ("1.5KiB", 1536),
        ("2GiB", 2**31),
        ("2G", 2**31),
        ("2GB", 2 * 10**9),
        ("1 TiB", 2**40),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, count: int) -> None:
    assert parse_size(text) == count
    assert open_driver(f"options://?room={text}").given["room"] == count  # type: ignore[attr-defined]


@given(st.floats(0.001, 1e12))
def test_a_duration_is_the_same_as_a_number_as_text_and_as_a_timedelta(seconds: float) -> None:
    assert parse_duration(seconds) == seconds
    assert parse_duration(f"{seconds:.9f}") == pytest.approx(seconds)
    assert parse_duration(timedelta(seconds=seconds)) == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize("value", [True, None, float("nan"), float("inf"), 0, -1, timedelta(0), "٣s", "1_0", [1]])
def test_what_is_no_duration_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"not|above 0"):
        parse_duration(value)


def test_options_reach_the_driver_in_their_types() -> None:
    driver = open_driver("options://?text=a%26b%3Dc&count=-3&ratio=0.5&safe=Yes&wait=15m&room=2K")
    assert driver.given == {  # type: ignore[attr-defined]
        "text": "a&b=c",
        "count": -3,
        "ratio": 0.5,
        "safe": True,
        "wait": 900.0,
        "room": 2048,
    }
    assert open_driver("options://").given["ratio"] is None  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "value"), [("1", True), ("true", True), ("ON", True), ("0", False), ("False", False), ("no", False)]
)
def test_yes_and_no_can_be_written_in_many_ways(text: str, value: bool) -> None:
    assert open_driver(f"options://?safe={text}").given["safe"] is value  # type: ignore[attr-defined]


def test_the_clock_of_the_store_is_the_clock_of_its_driver() -> None:
    clock = ManualClock()
    store = open_store("memory://?ttl=10", clock=clock)
    store.set("sid", {"user": "ada"})
    clock.advance(9)
    assert store.get("sid") == {"user": "ada"}
    clock.advance(2)
    assert store.get("sid") is None


def test_a_scheme_may_be_written_in_capitals() -> None:
    assert isinstance(open_driver("MEMORY://"), MemoryDriver)


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60))
def test_any_prefix_that_fits_comes_back_from_a_url(prefix: str) -> None:
    assert open_store(f"memory://?prefix={quote(prefix, safe='')}").prefix == prefix


# --- any text at all ---

PIECES = st.sampled_from(
    [
        "memory",
        "options",
        "MEMORY",
        "://",
        ":",
        "/",
        "//",
        "?",
        "&",
        "=",
        "#",
        "@",
        "%",
        "%2",
        "%00",
        "%ff",
        "[",
        "]",
        ".",
        "prefix",
        "ttl",
        "max_entries",
        "room",
        "wait",
        "count",
        "safe",
        "7d",
        "0",
        "1",
        "-1",
        "\0",
        "\n",
        "\ud800",
        "℀",
    ]
)


@given(st.text(max_size=30) | st.lists(PIECES, max_size=14).map("".join) | st.text().map("memory://".__add__))
def test_any_text_opens_or_is_a_config_error(url: str) -> None:
    # What opens a real folder or server is not left to chance. (urlsplit overlooks tabs, line ends and the like.)
    scheme = re.sub(r"[\0-\x20]", "", url).partition("://")[0].lower()
    assume(scheme == "memory" or scheme not in registry._builtin)
    try:
        store = open_store(url)
    except ConfigError:
        return
    assert isinstance(store.driver, MemoryDriver)


@settings(max_examples=25)
@given(st.text(max_size=30).filter(lambda text: not {"..", "$", "~"} & {*text, *text.split("/")}))
def test_any_name_of_a_folder_opens_or_is_a_config_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("any")
    url = f"disk://{folder}/{quote(text, safe='', errors='replace')}/store"
    try:
        store = open_store(url)
    except ConfigError:
        return
    store.set("sid", {"user": "ada"})
    assert store.get("sid") == {"user": "ada"}
    assert len([path for path in folder.rglob("cache.db") if path.is_file()]) == 1
    store.close()


# --- secrets ---

SECRETS = st.text("abcdefghijkmnpqrstuvwxyzABCDEF23456789", min_size=12, max_size=16).map("hunter-".__add__)
MISTAKES = st.sampled_from(
    [
        "?zzz=1",
        "?ttl=0",
        "?ttl=abc",
        "?prefix=",
        "?prefix=a&prefix=b",
        "?max_entries=x",
        "?max_entries=0",
        "#x",
        "/a/b",
        "?count=x",
        "?max_entries=1&max_entries=1",
        "?safe=x",
    ]
)
SCHEMES = st.sampled_from(["memory", "options", "nobody"])


def assert_no_secret(url: str, *secrets: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(url)
    shown = "".join(traceback.format_exception(caught.value, limit=0)) + repr(caught.value)
    for secret in secrets:
        assert secret not in shown
        assert quote(secret, safe="") not in shown


@given(SCHEMES, SECRETS, SECRETS, SECRETS, MISTAKES)
def test_user_password_and_options_are_in_no_error(
    scheme: str, user: str, password: str, option: str, mistake: str
) -> None:
    at_fault = mistake + ("&" if "?" in mistake else "?") + f"text={option}" if "#" not in mistake else mistake
    assert_no_secret(f"{scheme}://{user}:{password}@host:6379{at_fault}", user, password, option)


@given(
    SCHEMES,
    SECRETS,
    SECRETS,
    st.sampled_from(["/", "?", "#", "[", "]", "[]", "@", "℀", "&", "%", ":", "/?#@"]),
    MISTAKES,
)
def test_a_password_that_was_not_escaped_is_in_no_error(
    scheme: str, before: str, after: str, special: str, mistake: str
) -> None:
    for url in (
        f"ada:{before}{special}{after}@host:6379",
        f"ada:{before}?{after}={special}{after}@host:6379",
        f"ada:{before}?ttl={after}@host:6379",
        f"ada:{before}?text={after}@host:6379",
        f"{before}{special}{after}@host",
        f"/{before}{special}{after}@h",
    ):
        assert_no_secret(f"{scheme}://{url}{mistake}", before, after)


def test_a_machine_that_stalls_fails_no_test() -> None:
    @settings(max_examples=1)
    @given(st.just(0.25))
    def stall(seconds: float) -> None:
        time.sleep(seconds)  # longer than Hypothesis gives an example by default

    stall()


def test_a_shared_memory_store_keeps_its_user_to_itself() -> None:
    kept = open_store("memory://ada:hunter2@kept-to-itself?max_entries=5")
    assert "hunter2" not in repr(kept)
    assert_no_secret("memory://ada:hunter2@kept-to-itself?max_entries=6", "hunter2", "ada")


# --- drivers of others ---


def test_a_class_can_be_registered_and_comes_before_what_is_built_in() -> None:
    register_driver("MEMORY", Options)
    assert type(open_driver("memory://")) is Options


def test_a_name_is_imported_on_first_use_only() -> None:
    register_driver("late", "antigravity_of_nobody.drivers:Late")
    assert "late://" in error_of("zzz://")
    assert error_of("late://") == (
        "late:// needs the package antigravity_of_nobody, which is not installed: "
        "install the package that provides antigravity_of_nobody"
    )
    register_driver("late", "session_kit.drivers.memory:MemoryDriver")
    assert type(open_driver("late://")) is MemoryDriver


@pytest.mark.parametrize(
    "target",
    [
        dict,
        Options(clock=lambda: 0.0),
        None,
        "collections:OrderedDict",
        "session_kit.drivers.memory:Nobody",
        "session_kit.drivers.memory",
    ],
)
def test_what_is_no_driver_is_refused_by_name(target: Any) -> None:
    register_driver("wrong", target)
    if target is None:
        assert "no driver for wrong://" in error_of("wrong://")
    else:
        assert error_of("wrong://").startswith("wrong:// is registered for ")


@pytest.mark.parametrize("scheme", ["my_driver", "", "1st", "a b", "a://", "é"])
def test_a_scheme_that_no_url_can_have_is_refused_when_it_is_registered(scheme: str) -> None:
    with pytest.raises(ConfigError, match="cannot begin a URL"):
        register_driver(scheme, Options)


def test_an_installed_package_brings_its_driver_by_an_entry_point(tmp_path: Path) -> None:
    (tmp_path / "acme.py").write_text(
        "from session_kit.drivers.memory import MemoryDriver\n"
        "class AcmeDriver(MemoryDriver):\n"
        "    def __init__(self, *, colour: str = 'red', **options):\n"
        "        super().__init__(**options)\n"
        "        self.colour = colour\n"
    )
    info = tmp_path / "acme-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[session_kit.drivers]\nAcme = acme:AcmeDriver\nacme-extra = acme:AcmeDriver [fast]\nmemory = acme:AcmeDriver\n"
    )
    printed = python(
        "import sys\n"
        "from session_kit import ConfigError, open_driver, open_store\n"
        "assert type(open_driver('memory://')).__name__ == 'MemoryDriver'\n"
        "assert 'acme' not in sys.modules\n"
        "print(open_store('acme://?colour=blue&ttl=7d').driver.colour)\n"
        "print(type(open_driver('acme-extra://')).__name__)\n"
        "for url in ('acne://', 'acme://?color=blue'):\n"
        "    try: open_driver(url)\n"
        "    except ConfigError as error: print(error)\n",
        tmp_path,
    ).splitlines()
    assert printed == [
        "blue",
        "AcmeDriver",
        "no driver for acne://; did you mean acme://? Known: " + listed("acme", "acme-extra"),
        "acme://: unknown option 'color'; did you mean 'colour'? Valid options: colour.",
    ]


@pytest.mark.parametrize(
    ("scheme", "extra"), [(name, extra) for name, (_, extra) in registry._builtin.items() if extra]
)
def test_a_missing_package_names_the_extra_to_install(scheme: str, extra: str) -> None:
    printed = python(
        "import sys\n"
        "from session_kit import ConfigError, open_driver\n"
        "class NothingInstalled:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] not in {*sys.stdlib_module_names, 'session_kit'}:\n"
        "            raise ModuleNotFoundError(name=name)\n"
        "sys.meta_path.insert(0, NothingInstalled())\n"
        f"try: open_driver('{scheme}://host/path')\n"
        "except ConfigError as error: print(error)\n"
    )
    assert re.fullmatch(
        rf"{re.escape(scheme)}:// needs the package \w+, which is not installed: pip install '[a-z-]+\[{extra}\]'",
        printed,
    )


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:hunter2/abc@localhost",
        "rediss://user:hunter2/abc@localhost:6379/0",
        "redis+cluster://user:hunter2/abc@one,two",
        "redis+sentinel://user:hunter2/abc@one/service",
        "fsspec+ftp://user:hunter2/abc@host/folder",
        "fsspec+ftp://user:hunter2@host:99999/folder",
        "fsspec+sftp://user:hunter2/abc@host/folder",
    ],
)
def test_a_password_with_a_slash_is_in_no_error(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_driver(url)
    assert "hunter2" not in str(caught.value)
    assert str(caught.value).count("\n") == 0


# --- folders on Windows ---


@pytest.mark.parametrize(
    ("path", "on_windows"),
    [
        ("/C:/data", "C:/data"),
        ("/c:/my%20data", "c:/my data"),
        ("/C:%5Cdata", "C:\\data"),
        ("/C:", "/C:"),
        ("/C:data", "/C:data"),
        ("/CC:/data", "/CC:/data"),
        ("/var/lib", "/var/lib"),
        ("//server/share/data", "//server/share/data"),
    ],
)
def test_a_drive_letter_in_a_url_is_one_on_windows_alone(path: str, on_windows: str) -> None:
    assert named_in(path, windows=True) == on_windows
    assert named_in(path, windows=False) == unquote(path)


@pytest.mark.parametrize("scheme", ["disk", "file", "sqlite"])
def test_a_drive_letter_reaches_the_driver(scheme: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(folder, "named_in", lambda path: named_in(path, windows=True))
    monkeypatch.chdir(tmp_path)  # to this system `C:` is a folder's name like any other
    open_driver(f"{scheme}:///C:/data/sessions").close()
    assert (tmp_path / "C:" / "data" / "sessions").exists()


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters='<>:"/\\|?*\0'), min_size=1), min_size=1
    )
)
def test_the_url_of_a_folder_of_windows_names_that_folder(names: list[str]) -> None:
    folder = PureWindowsPath("C:/", *names)
    url = urlsplit(url_of("disk", folder))
    assert not url.netloc
    assert PureWindowsPath(named_in(url.path, windows=True)) == folder


class Careless(MemoryDriver):
    @classmethod
    def from_url(cls, url: SplitResult, **options: Any) -> Self:
        assert url.port is None  # which raises, and shows what it took for a port
        return cls(**options)


def test_what_a_driver_makes_of_a_bad_url_shows_no_piece_of_its_password() -> None:
    register_driver("careless", Careless)
    with pytest.raises(ConfigError, match="does not understand this URL") as error:
        open_driver("careless://ada:s3cr3t/x@host/name")
    assert "s3cr3t" not in str(error.value)
    assert error.value.__cause__ is None
    open_driver("careless://host/name").close()


@pytest.mark.parametrize("scheme", ["sqlite", "disk", "file"])
@pytest.mark.parametrize("name", ["$NOT_SET", "${NOT_SET}"])
def test_a_variable_that_is_not_set_is_no_folder_of_that_name(
    scheme: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    with pytest.raises(ConfigError, match="the environment has no variable"):
        open_driver(f"{scheme}://{tmp_path}/{name}/store")
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("NOT_SET", "set")
    open_driver(f"{scheme}://{tmp_path}/{name}/store").close()
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("kind", [SQLiteDriver, DiskDriver, FileDriver])
def test_a_home_that_is_not_known_is_no_folder_of_that_name(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container runs as a user that has no entry in its list, and without HOME."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="no such home folder"):
        kind("~nobody-has-this-name/store")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="other systems keep the folder that somebody is in")
@pytest.mark.parametrize("kind", [SQLiteDriver, DiskDriver, FileDriver])
def test_a_path_without_a_beginning_in_a_folder_that_is_gone_is_a_clear_error(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ConfigError, match="write the path in full"):
        kind("store")
    kind(tmp_path / "store").close()


@pytest.mark.parametrize("url", ["sqlite://{}/a/b/store.db", "disk://{}/a/b/store", "file://{}/a/b/store"])
def test_no_folder_on_the_way_is_open_to_others_whatever_the_umask(url: str, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with closing(open_driver(url.format(tmp_path))) as driver:
            driver.set("key", b"value")
    finally:
        os.umask(before)
    assert {path.name for path in tmp_path.rglob("*") if path.stat().st_mode & 0o077} == set()


class ForCheckers(MemoryDriver):
    def __init__(self, *, size: int = 0, watch: Watcher | None = None, clock: Callable[[], float] = time.time) -> None:
        super().__init__(clock=clock)
        self.size = size

    @classmethod
    def from_url(cls, url: SplitResult, **options: Any) -> Self:
        return cls(**options)


def test_a_type_that_is_imported_for_checkers_alone_breaks_no_url() -> None:
    register_driver("checkers", ForCheckers)
    driver = open_driver("checkers://?size=7")
    assert isinstance(driver, ForCheckers)
    assert driver.size == 7
    with pytest.raises(ConfigError, match="unknown option 'watch'"):
        open_driver("checkers://?watch=yes")
