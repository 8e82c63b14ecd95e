"""The operator's commands on the store of an application, for the frameworks whose command line is made with click."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from session_kit.manager import SessionManager
    from session_kit.store import UnstorageSessionStore


def make_group(get_manager: Callable[[], SessionManager]) -> click.Group:
    """The group `session`, with the commands `list`, `show`, `revoke`, `prune`, `copy` and `doctor`.

    get_manager: returns the manager of the application; called when a command runs.
    """

    def run(command: Callable[[UnstorageSessionStore], int]) -> None:
        from session_kit.operate import commands

        code = commands.run(lambda: command(commands.checked(get_manager().store)), _complain)
        click.get_current_context().exit(code)

    @click.group("session", help="The sessions of this application, in its store.")
    def group() -> None:
        pass

    of_a_user = click.option("--owner", metavar="USER", help="Those of this user, as `bind` has filed them.")

    @group.command("list")
    @of_a_user
    def list_(owner: str | None) -> None:
        """List the sessions, without their data."""
        from session_kit.operate.commands import list_sessions

        run(lambda store: list_sessions(store, click.echo, owner))

    @group.command()
    @click.argument("handle")
    @click.option("--values", is_flag=True, help="Show what the keys hold, too.")
    def show(handle: str, values: bool) -> None:
        """Show one session: its keys and their types."""
        from session_kit.operate.commands import show_session

        run(lambda store: show_session(store, handle, values, click.echo))

    @group.command()
    @click.argument("handles", metavar="[HANDLE...]", nargs=-1)
    @of_a_user
    def revoke(handles: tuple[str, ...], owner: str | None) -> None:
        """End sessions: they are gone at their next request."""
        from session_kit.operate.commands import revoke_sessions

        run(lambda store: revoke_sessions(store, handles, click.echo, _complain, owner))

    @group.command()
    def prune() -> None:
        """Remove what has expired and still takes room."""
        from session_kit.operate.commands import prune_store

        run(lambda store: prune_store(store, click.echo))

    @group.command()
    @click.option("--from", "old", metavar="OLD", help="The store to read; this application's is written.")
    @click.option("--to", "new", metavar="NEW", help="The store to write; this application's is read.")
    def copy(old: str | None, new: str | None) -> None:
        """Copy sessions into this application's store or out of it, both in use; again, what has changed since."""
        from session_kit.operate.commands import copy_with

        run(lambda store: copy_with(store, old, new, click.echo, _complain))

    @group.command()
    def doctor() -> None:
        """Examine the store, and the cookie: whether they do what sessions need."""
        from session_kit.operate.commands import examine_application

        run(lambda store: examine_application(store, get_manager(), click.echo))

    return group


def _complain(line: str) -> None:
    click.echo(line, err=True)
