"""`manage.py sessionkit list`, `show`, `revoke`, `prune`, `copy` and `doctor`, on the store of the project."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from typing import Any

from django.core.management.base import BaseCommand

from session_kit.drivers.support.findings import Finding
from session_kit.integrations.django.checks import check_secret, check_settings
from session_kit.integrations.django.settings import manager
from session_kit.operate import commands
from session_kit.operate.doctor import examine, examine_cookie
from session_kit.store import UnstorageSessionStore


class Command(BaseCommand):  # type: ignore[misc]  # Django has no types
    """Each subcommand is one of `session_kit.operate.commands`."""

    help = "List, show, revoke, prune, copy and examine the sessions of this project, in its store."
    requires_system_checks = ()  # `doctor` tells what is wrong

    def add_arguments(self, parser: ArgumentParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="COMMAND")
        listing = actions.add_parser("list", help="list the sessions, without their data")
        show = actions.add_parser("show", help="show one session: its keys and their types")
        show.add_argument("handle", help="as `list` shows it, or its beginning")
        show.add_argument("--values", action="store_true", help="show what the keys hold, too")
        revoke = actions.add_parser("revoke", help="end sessions: they are gone at their next request")
        revoke.add_argument("handles", nargs="*", metavar="HANDLE", help="as `list` shows them")
        for each in (listing, revoke):
            each.add_argument("--owner", metavar="USER", help="those of this user, as `bind` has filed them")
        actions.add_parser("prune", help="remove what has expired and still takes room")
        copy = actions.add_parser(
            "copy", help="copy sessions into this project's store or out of it; again, what has changed since"
        )
        copy.add_argument("--from", dest="old", metavar="OLD", help="the store to read; this project's is written")
        copy.add_argument("--to", dest="new", metavar="NEW", help="the store to write; this project's is read")
        actions.add_parser("doctor", help="examine the store and the settings: whether they do what sessions need")

    def handle(self, *args: Any, action: str, **options: Any) -> None:
        code = commands.run(lambda: self._run(action, options), self.stderr.write)
        if code:
            sys.exit(code)

    def _run(self, action: str, options: dict[str, Any]) -> int:
        say, complain = self.stdout.write, self.stderr.write
        store = commands.checked(manager().store)
        match action:
            case "list":
                return commands.list_sessions(store, say, options["owner"])
            case "show":
                return commands.show_session(store, options["handle"], options["values"], say)
            case "revoke":
                return commands.revoke_sessions(store, options["handles"], say, complain, options["owner"])
            case "prune":
                return commands.prune_store(store, say)
            case "copy":
                return commands.copy_with(store, options["old"], options["new"], say, complain)
            case _:
                return commands.show_findings(_findings(store), say)


def _findings(store: UnstorageSessionStore) -> Iterator[Finding]:
    yield from examine(store)
    yield from examine_cookie(manager().policy.cookie)
    for problem in (*check_settings(), *check_secret()):
        yield Finding("settings", "failed" if problem.is_serious() else "warning", problem.msg, problem.hint or "")
