"""The command line: `session-kit demo`, `session-kit bench`, `session-kit secret`."""

# Without `from __future__ import annotations`: typer reads the annotations of functions that are made inside another.
import secrets
import sys
from typing import TYPE_CHECKING, Annotated, Any

from session_kit import __version__
from session_kit.errors import SessionKitError

if TYPE_CHECKING:
    from typer import Typer

FROM_EXTRA = ("typer", "rich", "starlette", "uvicorn", "httpx")


def main() -> None:
    """Run the command line: the console script `session-kit`."""
    try:
        make_cli()()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in FROM_EXTRA:
            raise
        _quit(f"the package {package} is missing: pip install 'session-kit[cli]'", 1)
    except SessionKitError as error:
        _quit(str(error), 2)


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
            bool, typer.Option("--check", help="Start the demo, play a visitor, tell what was seen, and stop it.")
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
        outputs.publish(found)

    @cli.command()
    def secret() -> None:
        """Print a new secret for signing cookies."""
        print(secrets.token_urlsafe(32))

    return cli


def _quit(message: str, code: int) -> None:
    print(f"session-kit: {message}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
