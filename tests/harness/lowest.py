"""Prints the lowest version of each package that users may have, as pyproject.toml says: for `make test-lowest`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
AT_LEAST = re.compile(r"(?P<name>[\w.\[\]-]+)>=(?P<version>[\d.]+)[^;]*(?P<marker>;.*)?")
# What draws, and what the tests themselves run on.
LEFT_OUT = re.compile(r"(session-kit|matplotlib|hypothesis|pytest|starlette|uvicorn|httpx)\b.*")


def lowest() -> Iterator[str]:
    """A requirement for each package, of exactly its lowest version."""
    whole = tomllib.loads(PROJECT.read_text(encoding="utf-8"))
    project = whole["project"]
    # The two halves of OpenTelemetry have to be of one version.
    sdk = [line for line in whole["dependency-groups"]["test"] if str(line).startswith("opentelemetry")]
    for line in chain(project["dependencies"], *project["optional-dependencies"].values(), sdk):
        match = AT_LEAST.fullmatch(line)
        if match and not LEFT_OUT.fullmatch(line):
            yield f"{match['name']}=={match['version']}{match['marker'] or ''}"


if __name__ == "__main__":
    print(*lowest(), sep="\n")
