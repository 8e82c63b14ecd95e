"""The conformance suite bites: a driver that breaks one promise fails the test of that promise."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

# The name of each broken driver, what it does wrong, and the test that must find it.
BROKEN = {
    "IgnoresExpect": (
        "def set(self, key, value, *, ttl=None, expect=ANY):\n        return super().set(key, value, ttl=ttl)",
        "test_creating_only_creates",
    ),
    "ClaimsToCreate": (
        "def set(self, key, value, *, ttl=None, expect=ANY):\n"
        "        if expect is ABSENT:\n"
        "            if self.has(key):\n                raise Conflict('there')\n"
        "            time.sleep(0.01)\n            expect = ANY\n"
        "        return super().set(key, value, ttl=ttl, expect=expect)",
        "test_of_many_racers_one_creates",
    ),
    "ShowsExpired": (
        "def keys(self, prefix=''):\n        return iter([key for key in self._entries if key.startswith(prefix)])",
        "test_an_expired_key_is_seen_nowhere",
    ),
    "Globs": (
        "def keys(self, prefix=''):\n"
        "        return (key for key in super(Globs, self).keys() if fnmatch.fnmatch(key, prefix + '*'))",
        "test_a_prefix_is_taken_literally",
    ),
    "FoldsCase": (
        "def set(self, key, value, *, ttl=None, expect=ANY):\n"
        "        return super().set(key.lower() if isinstance(key, str) else key, value, ttl=ttl, expect=expect)",
        "test_hostile_keys_come_back_unchanged_and_stay_apart",
    ),
    "KeepsOldTtl": (
        "def set(self, key, value, *, ttl=None, expect=ANY):\n"
        "        old = self._entries.get(key)\n"
        "        version = super().set(key, value, ttl=ttl, expect=expect)\n"
        "        if old is not None and ttl is None:\n"
        "            self._entries[key] = self._entries[key]._replace(expires_at=old.expires_at)\n"
        "        return version",
        "test_a_set_without_a_ttl_drops_an_old_one",
    ),
    "TakesAnyTtl": (
        "def set(self, key, value, *, ttl=None, expect=ANY):\n"
        "        ttl = None if ttl is None else max(1.0, float(ttl))\n"
        "        return super().set(key, value, ttl=ttl, expect=expect)",
        "test_a_wrong_ttl_is_refused_before_anything_is_written",
    ),
    "TruncatesTtl": (
        "def set(self, key, value, *, ttl=None, expect=ANY):\n"
        "        return super().set(key, value, ttl=ttl and max(1, int(ttl)), expect=expect)",
        "test_fractions_of_a_second_count",
    ),
    "ReusesVersions": (
        "def set(self, key, value, *, ttl=None, expect=ANY):\n"
        "        self._versions = itertools.repeat(1)\n"
        "        return super().set(key, value, ttl=ttl, expect=expect)",
        "test_a_version_only_replaces_what_was_read",
    ),
    "ClaimsNeverToBlock": (
        "async def aset(self, key, value, *, ttl=None, expect=ANY):\n"
        "        return await self._in_thread(self.set, key, value, ttl=ttl, expect=expect)",
        "test_calls_that_never_block_run_on_the_callers_thread",
    ),
    "ClaimsToBeShared": ("capabilities = Capabilities(shared=True)", "test_several_processes_share_the_store"),
    "PretendsToSwap": (
        "capabilities = Capabilities(create=True, never_blocks=True)",
        "test_what_is_not_supported_is_refused_before_any_write",
    ),
    "DeletesSiblings": (
        "def clear(self, prefix=''):\n        return super().clear(prefix.rstrip(':'))",
        "test_a_prefix_is_taken_literally",
    ),
    "ShowsValues": ("def __repr__(self):\n        return repr(self._entries)", "test_repr_shows_no_value"),
    "CreatesForEver": (
        "def set(self, key, value, *, ttl=None, expect=ANY):\n"
        "        return super().set(key, value, ttl=None if expect is ABSENT else ttl, expect=expect)",
        "test_a_creation_sets_the_ttl_and_tells_the_version",
    ),
    "TellsAnotherVersion": (
        "def set(self, key, value, *, ttl=None, expect=ANY):\n"
        "        version = super().set(key, value, ttl=ttl, expect=expect)\n"
        "        return -1 if expect is ABSENT else version",
        "test_a_creation_sets_the_ttl_and_tells_the_version",
    ),
    "SwapsForEver": (
        "def set(self, key, value, *, ttl=None, expect=ANY):\n"
        "        return super().set(key, value, ttl=ttl if expect in (ANY, ABSENT) else None, expect=expect)",
        "test_a_swap_sets_the_ttl",
    ),
    "RefusedSwapDropsTtl": (
        "def set(self, key, value, *, ttl=None, expect=ANY):\n"
        "        try:\n            return super().set(key, value, ttl=ttl, expect=expect)\n"
        "        except Conflict:\n            self.touch(key, None)\n            raise",
        "test_a_refused_swap_leaves_the_ttl",
    ),
    "NeverShortens": (
        "def set(self, key, value, *, ttl=None, expect=ANY):\n"
        "        left = self._entries[key].expires_at - self.clock() if ttl and self.has(key) else 0\n"
        "        return super().set(key, value, ttl=ttl and max(ttl, left), expect=expect)",
        "test_a_set_can_shorten_what_is_left",
    ),
    "LikeMemcached": (  # a ttl of more than thirty days is a time there, and long over
        "def set(self, key, value, *, ttl=None, expect=ANY):\n"
        "        return super().set(key, value, ttl=1 if ttl and ttl > 2592000 else ttl, expect=expect)",
        "test_a_long_ttl_is_no_short_one",
    ),
    "TouchesLikeMemcached": (
        "def touch(self, key, ttl=None):\n        return super().touch(key, 1 if ttl and ttl > 2592000 else ttl)",
        "test_a_long_ttl_is_no_short_one",
    ),
    "ListsAPage": (
        "async def akeys(self, prefix=''):\n"
        "        for key in itertools.islice(self.keys(prefix), 1000):\n            yield key",
        "test_a_long_listing_is_whole_and_clear_leaves_nothing",
    ),
    "OutOfStep": (
        "answers = ()\n"
        "    async def aread(self, key):\n"
        "        self.answers = [*self.answers, self.read(key)]\n"
        "        await asyncio.sleep(0)\n        await asyncio.sleep(0)\n"
        "        return self.answers.pop(0)\n"
        "    async def aget(self, key):\n        entry = await self.aread(key)\n        return entry and entry.value",
        "test_a_call_that_is_cancelled_gives_its_answer_to_no_other",
    ),
    "TwinDiffers": ("async def ahas(self, key):\n        return True", "test_a_missing_key_is_missing_everywhere"),
}

HEADER = """
import asyncio, fnmatch, itertools, time
from session_kit.drivers import ABSENT, ANY, Capabilities, Conflict
from session_kit.drivers.memory import MemoryDriver
from session_kit.testing import DriverConformance
"""

CASE = """
class {name}(MemoryDriver):
    {body}

class Test{name}(DriverConformance):
    def open_driver(self, clock, tmp_path):
        return {name}(clock=clock)
"""


@pytest.fixture(scope="session")
def failed(tmp_path_factory: pytest.TempPathFactory) -> set[tuple[str, str]]:
    """Run the test that must find it on each broken driver, and return which failed for which."""
    folder = tmp_path_factory.mktemp("broken")
    cases = "".join(CASE.format(name=name, body=body) for name, (body, _) in BROKEN.items())
    (folder / "test_broken.py").write_text(HEADER + cases)
    wanted = [f"test_broken.py::Test{name}::{test}" for name, (_, test) in BROKEN.items()]
    command = [sys.executable, "-m", "pytest", "-q", "-rf", "-p", "no:cacheprovider", *wanted]
    result = subprocess.run(
        command,
        cwd=folder,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1, result.stdout + result.stderr
    return set(re.findall(r"^FAILED test_broken\.py::Test(\w+)::(\w+)", result.stdout, re.MULTILINE))


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_promise_is_found(failed: set[tuple[str, str]], name: str) -> None:
    assert (name, BROKEN[name][1]) in failed
