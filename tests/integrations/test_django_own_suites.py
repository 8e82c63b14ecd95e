"""Django's own suites that touch sessions run with ours, both ways. What fails is named here, with the reason."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.django_source import unpack_django

ROOT = Path(__file__).parents[2]
SUITES = ("sessions_tests", "auth_tests", "messages_tests", "csrf_tests", "test_client", "test_client_regress")
THEIRS = "django.contrib.sessions.middleware"

ENGINE_FAILS = {
    "SessionMiddlewareTests.test_empty_session_saved": "looks into the database table of Django's own engine",
    # From Django 6 on.
    "TestLoginRequiredMiddleware.test_protected_view_logged_in_performance": "counts the queries of that engine",
}
SHARED_FAILS = {
    **ENGINE_FAILS,
    "SessionMiddlewareTests.test_empty_session_saved": "goes on with a session after its response",
    "SessionMiddlewareTests.test_session_delete_on_end": "the cookie of an unknown id is left alone",
    "SessionMiddlewareTests.test_session_delete_on_end_with_custom_domain_and_path": "the same",
    "SessionMiddlewareTests.test_session_update_error_redirect": "puts a session of Django's own in place of ours",
    # Another SESSION_ENGINE under our middleware.
    "ClientTest.test_sessions_app_is_not_installed": "the engine is that of files",
    "ClientTest.test_view_with_login_when_sessions_app_is_not_installed": "the engine is that of files",
    "ClientTest.test_logout_cookie_sessions": "the engine is that of cookies",
    "SessionEngineTests.test_login": "the engine is one of the test's own",
}

SETTINGS = """
DATABASES = {name: {"ENGINE": "django.db.backends.sqlite3"} for name in ("default", "other")}
SECRET_KEY = "django_tests_secret_key"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
USE_TZ = False
SESSION_ENGINE = "session_kit.integrations.django"
SESSION_KIT = {"store": "memory://"}
"""


@pytest.mark.slow
@pytest.mark.parametrize(("way", "fails"), [("engine", ENGINE_FAILS), ("shared cookie", SHARED_FAILS)])
def test_djangos_own_suites(way: str, fails: dict[str, str], tmp_path: Path) -> None:
    tests = unpack_django(tmp_path)
    (tests / "settings_ours.py").write_text(SETTINGS)
    if way == "shared cookie":
        for file in [tests / "runtests.py", *(file for suite in SUITES for file in (tests / suite).rglob("*.py"))]:
            text = file.read_text()
            text = text.replace(f"from {THEIRS} import", "from session_kit.integrations.django import")
            file.write_text(text.replace(f'"{THEIRS}.', '"session_kit.integrations.django.'))
    result = subprocess.run(
        [sys.executable, "runtests.py", "--settings=settings_ours", "--parallel=1", *SUITES],
        cwd=tests,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tests)])},
        capture_output=True,
        text=True,
        check=False,
    )
    said = result.stdout + result.stderr
    failed = {".".join(name.split(".")[-2:]) for name in re.findall(r"^(?:FAIL|ERROR): \w+ \((.*?)\)", said, re.M)}
    sources = "".join(file.read_text() for suite in SUITES for file in (tests / suite).rglob("*.py"))
    assert failed == {name for name in fails if f"def {name.partition('.')[2]}(" in sources}, said[-3000:]
    ran = re.search(r"^Ran (\d+) tests", said, re.M)
    assert ran is not None
    assert int(ran[1]) > 1900
    print(f"{way}: {int(ran[1]) - len(failed)} of {ran[1]} of Django's own tests passed")
