"""The command line `session-kit`: demo, bench, secret, and what operators do with a store."""

# Without `from __future__ import annotations`: typer reads the annotations of functions that are made inside another.
import secrets
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from session_kit import __version__
from session_kit.drivers.errors import how_to_install

if TYPE_CHECKING:
    from typer import Typer

FROM_EXTRA = ("typer", "rich", "starlette", "uvicorn", "httpx")


def main() -> None:
    """Run the command line: the console script `session-kit`."""
    if sys.argv[1:] == ["secret"]:  # which a bare install has too
        print(secrets.token_urlsafe(32))
        return
    from session_kit.operate import commands

    try:
        sys.exit(commands.run(make_cli(), _complain))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in FROM_EXTRA:
            raise
        _complain(f"session-kit: the package {package} is missing: {how_to_install('cli')}")
        sys.exit(commands.CANNOT_WORK)


def make_cli() -> "Typer":
    """Return the application that `main` runs."""
    # Here and in the commands, so that a missing package becomes one clear line.
    import typer

    cli = typer.Typer(
        name="session-kit",
        help="Server-side web sessions for every Python web framework, on any key-value store.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )

    def show_version(wanted: bool) -> None:
        if wanted:
            print(f"session-kit {__version__}")
            raise typer.Exit

    @cli.callback()
    def common(
        version: Annotated[
            bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version and exit.")
        ] = False,
    ) -> None:
        pass

    @cli.command()
    def demo(
        store: Annotated[
            str | None,
            typer.Option(metavar="URL", help="Where sessions are kept. Default: disk:// in your cache folder."),
        ] = None,
        port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
        host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
        grace: Annotated[float, typer.Option(min=0, help="Seconds that an old id still works after a rotation.")] = 10,
        insecure: Annotated[
            bool,
            typer.Option(
                "--insecure", help="Send the cookie over plain http too: for Safari, or from another machine."
            ),
        ] = False,
        check: Annotated[
            bool, typer.Option("--check", help="Start the demo, play a visitor, print what was seen, and stop it.")
        ] = False,
    ) -> None:
        """Run a small web application with sessions, to see how they behave."""
        from rich.console import Console

        console = Console(soft_wrap=True, highlight=False)
        if check:
            from session_kit.demo.check import play

            raise typer.Exit(play(console, store))
        from session_kit.demo.server import serve

        serve(console, store, host=host, port=port, grace=grace, secure=not insecure)

    @cli.command()
    def bench(
        urls: Annotated[
            list[str], typer.Argument(metavar="URL...", help="Stores to compare, such as memory:// disk:///tmp/store.")
        ],
        workload: Annotated[
            list[str] | None,
            typer.Option(
                metavar="NAME",
                help="What to do: get, set, swap, renew, delete, list (driver), read, write, first, login (session)."
                " Default: all.",
            ),
        ] = None,
        size: Annotated[
            list[str] | None, typer.Option(metavar="SIZE", help="Of a value, or of a session's data. Default: 200.")
        ] = None,
        full: Annotated[bool, typer.Option("--full", help="The sizes 200, 4KB and 64KB.")] = False,
        mode: Annotated[
            list[str] | None, typer.Option(metavar="MODE", help="sync (threads) or async (tasks). Default: both.")
        ] = None,
        concurrency: Annotated[
            list[int] | None, typer.Option(metavar="NUMBER", help="Workers side by side. Default: 1 and 50.")
        ] = None,
        hits: Annotated[float, typer.Option(help="Share of the reads that find something, 0 to 1.")] = 1.0,
        seconds: Annotated[float, typer.Option(help="For which a row of the table is measured in each round.")] = 0.05,
        rounds: Annotated[int, typer.Option(help="How often each row gets its turn.")] = 5,
        json: Annotated[
            str | None,
            typer.Option(metavar="FILE", help="Write all figures as JSON; - for stdout, and the table goes to stderr."),
        ] = None,
        plot: Annotated[
            str | None, typer.Option(metavar="FILE", help="Draw a picture: PNG, or SVG or PDF by its name.")
        ] = None,
    ) -> None:
        """Measure stores side by side: driver calls, and sessions without a web framework.

        What is written gets a random prefix, and is deleted at the end, also after Ctrl-C. Options that name
        something may be repeated.
        """
        from session_kit.benchmarks import report
        from session_kit.benchmarks.bench import Settings, read_sizes, run

        chosen: dict[str, Any] = {
            "workloads": workload,
            "sizes": read_sizes(size or (), full=full),
            "modes": mode,
            "concurrency": concurrency,
        }
        given = {name: list(dict.fromkeys(values)) for name, values in chosen.items() if values}
        settings = Settings(urls, hits=hits, seconds=seconds, rounds=rounds, **given)
        outputs = report.Outputs(json, plot)
        with report.progress_bar() as tell:
            found = run(settings, tell, report.say)
        raise typer.Exit(outputs.publish(found))

    @cli.command()
    def secret() -> None:
        """Print a new secret for signing cookies."""
        print(secrets.token_urlsafe(32))

    _add_operators(cli)
    return cli


def _add_operators(cli: "Typer") -> None:
    """Add the commands for a store in use."""
    import typer

    from session_kit.operate import commands
    from session_kit.store import UnstorageSessionStore

    Url = Annotated[str, typer.Argument(metavar="URL", help="The store, such as 'redis://localhost?prefix=shop'.")]

    Owner = Annotated[str | None, typer.Option(metavar="USER", help="Those of this user, as `bind` has filed them.")]

    def run(command: Callable[[], int]) -> None:
        raise typer.Exit(commands.run(command, _complain))

    def run_on(url: str, command: Callable[[UnstorageSessionStore], int]) -> None:
        def opened() -> int:
            with commands.opened(url) as store:
                return command(store)

        run(opened)

    @cli.command("list")
    def list_(url: Url, owner: Owner = None) -> None:
        """List the sessions of a store, without their data."""
        run_on(url, lambda store: commands.list_sessions(store, print, owner))

    @cli.command()
    def show(
        url: Url,
        handle: Annotated[str, typer.Argument(help="As `list` shows it, or its beginning.")],
        values: Annotated[bool, typer.Option("--values", help="Show what the keys hold, too.")] = False,
    ) -> None:
        """Show one session: its keys and their types."""
        run_on(url, lambda store: commands.show_session(store, handle, values, print))

    @cli.command()
    def revoke(
        url: Url,
        handles: Annotated[
            list[str] | None, typer.Argument(metavar="[HANDLE...]", help="As `list` shows them.")
        ] = None,
        owner: Owner = None,
    ) -> None:
        """End sessions: they are gone at their next request."""
        run_on(url, lambda store: commands.revoke_sessions(store, handles or [], print, _complain, owner))

    @cli.command()
    def prune(url: Url) -> None:
        """Remove what has expired and still takes room."""
        run_on(url, lambda store: commands.prune_store(store, print))

    @cli.command()
    def copy(
        old: Annotated[str, typer.Argument(metavar="OLD", help="The store to read.")],
        new: Annotated[str, typer.Argument(metavar="NEW", help="The store to write.")],
    ) -> None:
        """Copy the sessions of one store into another, both in use; again, what has changed since."""

        def command() -> int:
            with commands.opened(old) as source, commands.opened(new, new=True) as target:
                return commands.copy_sessions(source, target, print, _complain)

        run(command)

    @cli.command()
    def doctor(
        url: Url,
        secret_env: Annotated[
            str | None,
            typer.Option(metavar="NAME", help="The environment variable with the secret, to be examined too."),
        ] = None,
    ) -> None:
        """Examine a store: whether it does what sessions need, and what to do where it does not."""
        run(lambda: commands.examine_url(url, secret_env, print))


def _complain(line: str) -> None:
    print(line, file=sys.stderr)


if __name__ == "__main__":
    main()
