"""Django's own tests, from the source package of the Django that is installed."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path


def unpack_django(folder: Path) -> Path:
    """Fetch the source package and return its folder `tests`."""
    wanted = f"django=={version('django')}"
    words = ["download", "-q", "--no-deps", "--no-binary", "django", "--no-build-isolation", "-d", str(folder), wanted]
    subprocess.run([sys.executable, "-m", "pip", *words], check=True, capture_output=True)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as package:
        package.extractall(folder, filter="data")
    (tests,) = folder.glob("*/tests")
    return tests
