"""Keys become names of files and objects that nothing can confuse and nothing can escape with."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from session_kit.drivers.support.names import (
    DEVICES,
    PART_LENGTH,
    key_of,
    key_of_path,
    name_of,
    parts_of,
    path_of,
    stem_of,
)

KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda key: len(key.encode()) <= 512)
SAFE = re.compile(r"[a-z0-9\-_!$'()@,=~]+")


@given(KEYS)
def test_a_name_is_safe_short_and_gives_its_key_back(key: str) -> None:
    name = name_of(key)
    assert SAFE.fullmatch(name)
    assert key_of(name) == key


@pytest.mark.parametrize("key", ["/" * 512, "\U0001f36a" * 128, "k" * 512, "k" * 200, "k" * 199 + "\u00e9" + "x" * 300])
def test_the_longest_keys_fit_into_an_object_name(key: str) -> None:
    assert len(name_of(key)) <= 901
    assert len(path_of(key)) <= 913
    assert max(len(part) for part in path_of(key).split("/")) <= 202
    assert key_of(name_of(key)) == key


@given(KEYS)
def test_a_path_gives_its_key_back(key: str) -> None:
    assert key_of_path(path_of(key)) == key


AT_THE_END = [(f"////{'k' * (PART_LENGTH - 8)}{device}", device) for device in sorted(DEVICES)]
PACKED = [("//" + "k" * 198 + "\0" * 122 + "\x003\x17", "con"), ("//" + "k" * 198 + "\0" * 122 + "\0gw", "prn")]


@pytest.mark.parametrize(("key", "device"), [*((device, device) for device in sorted(DEVICES)), *AT_THE_END, *PACKED])
def test_no_file_is_called_like_a_device_of_windows(key: str, device: str) -> None:
    assert parts_of(key)[-1] == f"{device}~"
    assert key_of(name_of(key)) == key_of_path(path_of(key)) == key
    assert name_of(key).startswith(stem_of(key))
    assert key_of(name_of(key).removesuffix("~")) is None


@pytest.mark.parametrize("path", ["a.d/b", "/", "", "a/b", "../a", "k" * 201, "k" * 200 + ".d/"])
def test_a_strange_path_is_no_key(path: str) -> None:
    assert key_of_path(path) is None


@given(KEYS, st.integers(0, 520))
def test_names_and_paths_of_one_prefix_share_a_stem(key: str, length: int) -> None:
    assert name_of(key).startswith(stem_of(key[:length]))
    assert path_of(key).startswith(stem_of(key[:length]))


@given(KEYS, KEYS)
def test_keys_that_differ_have_names_that_differ_in_more_than_case(one: str, other: str) -> None:
    assert (one == other) == (name_of(one).casefold() == name_of(other).casefold())


@given(st.text() | st.from_regex(SAFE, fullmatch=True))
def test_what_is_no_name_of_ours_is_no_key(name: str) -> None:
    key = key_of(name)
    assert key is None or name_of(key) == name


@pytest.mark.parametrize("name", ["", "~", "!", "A", "a.tmp", "..", "$e~", "!z", "k" * 200 + "~", "'1x~00"])
def test_a_strange_name_is_no_key(name: str) -> None:
    assert key_of(name) is None
