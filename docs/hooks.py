"""What the pages are given when the site is built: the API, made of the code, and links into the repository.

In a page a line `::: session_kit.Session` stands for what the docstrings of that class or function say (`without NAME`
behind it leaves methods out). Tables are in the pages themselves, for readers of the repository, between a comment and
`<!-- end -->`: `<!-- options session_kit.drivers.s3.S3Driver -->` for the options that a URL gives to that driver,
`<!-- settings -->` for the settings of a manager, `<!-- errors -->` for all errors. `pytest --write-tables` writes
them.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[1]

DIRECTIVE = re.compile(r"^::: (.+)$", re.MULTILINE)
TABLE = re.compile(
    r"^<!-- (options|settings|errors)(?: (\S+))? -->\n.*?^<!-- end -->$",
    re.MULTILINE | re.DOTALL,
)
LINK_OUT = re.compile(r"\]\(\.\./([^)#\s]+)")
PATH_IN_CODE = re.compile(
    r"(?<![\[`])`((?:tests|benchmarks|drivers|session_kit|examples)/[\w/.-]+\.\w+)(?:::(\w+))?`"
)
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
PARAMETER = re.compile(r"(\w+(?:, \w+)*): ")
TWIN = "Async twin of "

Parameters = dict[str, str]


# --- docstrings ---


def split_doc(thing: Any) -> tuple[str, Parameters, str]:
    """The summary of a docstring, what it says of each parameter, and the rest as Markdown."""
    doc = inspect.getdoc(thing) or ""
    names = parameter_names(thing)
    summary, _, body = doc.partition("\n\n")
    parameters: Parameters = {}
    rest = []
    for paragraph in re.split(r"\n\n+", body):
        items, others = split_items(paragraph, names)
        parameters.update(items)
        if others:
            rest.append(
                f"```python\n{others}\n```" if others.startswith(">>>") else others
            )
    return summary, parameters, "\n\n".join(rest)


def split_items(paragraph: str, names: set[str]) -> tuple[Parameters, str]:
    """Of the lines `name: text` of a paragraph what each name is given, and the other lines."""
    items: Parameters = {}
    others = []
    last: list[str] = []
    for line in paragraph.splitlines():
        match = PARAMETER.match(line)
        if match and set(match[1].split(", ")) <= names:
            last = match[1].split(", ")
            items.update(dict.fromkeys(last, line[match.end() :]))
        elif last and line.startswith("    ") and not line.lstrip().startswith(">>>"):
            items.update(dict.fromkeys(last, f"{items[last[0]]} {line.strip()}"))
        else:
            last = []
            others.append(line)
    for name in list(items):  # a second name may stand on the line of the first
        for other in names - items.keys():
            before, found, after = items[name].partition(f". {other}: ")
            if found:
                items[name], items[other] = f"{before}.", after
    return items, "\n".join(others)


def parameter_names(thing: Any) -> set[str]:
    if inspect.isclass(thing):
        attributes = {
            name
            for cls in thing.__mro__[:-1]
            for name in getattr(cls, "__annotations__", {})
        }
        return {*inspect.signature(thing.__init__).parameters, *attributes} - {"self"}
    if isinstance(thing, property):
        return set()
    return set(inspect.signature(thing).parameters) - {"self", "cls"}


# --- the API ---


def find(path: str) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def api(path: str, without: list[str]) -> str:
    """A class with its public methods, but for those in `without`, or a function, by its dotted name."""
    thing, name, title = (
        find(path),
        path.rpartition(".")[2],
        path.removeprefix("session_kit."),
    )
    lines = [
        f"## {title} {{ #{title.lower()} }}",
        "",
        f"`from {path.rpartition('.')[0]} import {name}`",
        "",
        *entry(thing, name),
    ]
    if inspect.isclass(thing):
        for member, value in members(thing):
            if member in without:
                continue
            lines += [
                f"### {name}.{member} {{ #{title.lower()}.{member} }}",
                "",
                *entry(value, member),
            ]
            if hasattr(thing, f"a{member}") and not isinstance(value, property):
                lines += [f"Async twin: `a{member}`.", ""]
    return "\n".join(lines)


def entry(thing: Any, name: str) -> Iterator[str]:
    thing = thing.__func__ if isinstance(thing, classmethod) else thing
    summary, parameters, rest = split_doc(thing)
    if not isinstance(thing, property) and (parameters or not inspect.isclass(thing)):
        yield f"```python\n{signature(thing, name)}\n```\n"
    yield f"{summary}\n"
    for parameter, text in parameters.items():
        yield f"- **`{parameter}`**: {text}"
    if parameters:
        yield ""
    if rest:
        yield f"{rest}\n"


def members(cls: type) -> Iterator[tuple[str, Any]]:
    """The public methods and properties that the class itself defines and documents; twins go with what they repeat."""
    for name, value in vars(cls).items():
        documented = value.__func__ if isinstance(value, classmethod) else value
        doc = inspect.getdoc(documented) or ""
        shown = doc and not doc.startswith(TWIN) and "For integrations" not in doc
        if (
            shown
            and not name.startswith("_")
            and (callable(documented) or isinstance(value, property))
        ):
            yield name, value


def signature(thing: Any, name: str) -> str:
    """`name(parameters)`, one to a line where that is long. Annotations stand as they are written."""
    found = inspect.signature(thing)
    own = [
        item for item in found.parameters.values() if item.name not in ("self", "cls")
    ]
    shown = [
        item.replace(
            default=plain(item.default, readable), annotation=plain(item.annotation)
        )
        for item in own
    ]
    returns = (
        inspect.Signature.empty
        if inspect.isclass(thing)
        else plain(found.return_annotation)
    )
    name = f"async {name}" if inspect.iscoroutinefunction(thing) else name
    line = name + str(found.replace(parameters=shown, return_annotation=returns))
    if len(line) <= 100:
        return line
    inner, _, answer = line.removeprefix(f"{name}(").rpartition(")")
    pieces = re.split(r", (?![^\[(]*[\])])", inner)
    return f"{name}(\n    " + ",\n    ".join(pieces) + f",\n){answer}"


class Text(str):
    """Text that Python shows without quotes."""

    def __repr__(self) -> str:
        return str(self)


def plain(value: Any, write: Callable[[Any], str] = str) -> Any:
    """What stands for an annotation or a default, if there is one."""
    if value is inspect.Parameter.empty:
        return value
    value = getattr(value, "__forward_arg__", value)  # of a NamedTuple
    return Text(write(value).replace("'", '"'))


def readable(default: object) -> str:
    if callable(default):
        ours = default.__module__.startswith("session_kit")
        return (
            default.__qualname__
            if ours
            else f"{default.__module__}.{default.__qualname__}"
        )
    if isinstance(default, frozenset):
        return "USER_KEYS"
    if type(default).__name__ == "CookieOptions":
        return "CookieOptions()"
    if isinstance(default, Enum):
        return default.name
    if isinstance(default, str):
        return f'"{default}"'
    return repr(default)


# --- tables ---


def options(path: str) -> str:
    """The options that a URL gives to a driver, or to the store, by the dotted name of the class."""
    rows = [
        (f"`{name}`", kind, default, text)
        for name, kind, default, text in option_rows(find(path))
    ]
    return table(("option", "value", "default", "meaning"), rows)


def option_rows(cls: Any) -> Iterator[tuple[str, str, str, str]]:
    """Name, kind of value, default and meaning of each option, as the code has them."""
    _, meanings, _ = split_doc(cls)
    parameters = inspect.signature(cls.__init__).parameters
    for name, kind in option_kinds(cls).items():
        if (
            name in parameters
            and parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
        ):  # not those of a client
            yield name, kind, written(parameters[name].default, kind), meanings[name]


def option_kinds(cls: Any) -> dict[str, str]:
    """What text each option takes."""
    from session_kit.drivers.support.options import Duration, Size, parser_for
    from session_kit.store import OWN_OPTIONS, UnstorageSessionStore

    if cls is UnstorageSessionStore:
        return {name: {"ttl": "a time"}.get(name, "text") for name in OWN_OPTIONS}
    words = {
        str: "text",
        int: "a number",
        bool: "yes or no",
        Duration: "a time",
        Size: "a size",
    }
    kinds = {parser_for(kind): word for kind, word in words.items()}
    return {
        name: kinds[parser]
        for name, parser in cls.url_options(urlsplit("any://host")).items()
    }


def written(default: object, kind: str) -> str:
    """A default as a URL would have it."""
    if default is None:
        return ""
    if kind == "a time" and isinstance(default, float):
        return "`1d`" if default == 86400 else f"`{default:g}s`"
    if kind == "yes or no":
        return "`yes`" if default else "`no`"
    return f"`{default}`"


def settings() -> str:
    """The settings of a manager, with their defaults."""
    from session_kit import SessionManager

    _, meanings, _ = split_doc(SessionManager)
    parameters = inspect.signature(SessionManager.__init__).parameters
    rows = []
    for name, text in meanings.items():
        default = parameters[name].default
        shown = (
            "required"
            if default is inspect.Parameter.empty
            else f"`{readable(default)}`"
        )
        rows.append((f"`{name}`", shown, text))
    return table(("setting", "default", "meaning"), rows)


def errors() -> str:
    """All errors, each with what it is and what it is a kind of."""
    from session_kit import errors as module

    rows = []
    for name in module.__all__:
        cls = getattr(module, name)
        summary, _, rest = split_doc(cls)
        rows.append(
            (f"`{name}`", f"`{cls.__bases__[0].__name__}`", f"{summary} {rest}".strip())
        )
    return table(("error", "is a", "when"), rows)


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    cells = [
        [cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def write_tables(markdown: str) -> str:
    """The page with its tables as the code has them now."""

    def written(match: re.Match[str]) -> str:
        begin = match[0].partition("\n")[0]
        return f"{begin}\n{tables[match[1]](match[2])}\n<!-- end -->"

    tables = {
        "options": options,
        "settings": lambda _: settings(),
        "errors": lambda _: errors(),
    }
    return TABLE.sub(written, markdown)


# --- what mkdocs calls ---


def expand(markdown: str) -> str:
    """The page with what its directives stand for, and classes around its tables for `style.css`."""

    def made(match: re.Match[str]) -> str:
        path, *without = match[1].split()
        return api(path, without[1:])

    def classed(match: re.Match[str]) -> str:
        kind = "errors" if match[1] == "errors" else "options"
        inner = match[0].partition("\n")[2].rpartition("\n")[0]
        return f'<div class="stacked {kind}" markdown="1">\n\n{inner}\n\n</div>'

    return TABLE.sub(classed, DIRECTIVE.sub(made, markdown))


def link_out(markdown: str, repository: str) -> str:
    """Let links that leave `docs/`, and names of files of the repository, lead there; pictures are copied in."""

    def link(match: re.Match[str]) -> str:
        path = match[1]
        if not (ROOT / path).exists():
            return match[0]  # mkdocs says that it is broken
        return (
            f"]({path}" if path.endswith(".png") else f"]({repository}/blob/main/{path}"
        )

    def name(match: re.Match[str]) -> str:
        path, function = match.groups()
        if not (ROOT / path).exists():
            return match[0]
        shown = re.sub(
            r"([_/])", r"\1<wbr>", function or path
        )  # where a narrow column may break it
        return f'<a href="{repository}/blob/main/{path}"><code>{shown}</code></a>'

    parts, end = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [
            PATH_IN_CODE.sub(name, LINK_OUT.sub(link, markdown[end : fence.start()])),
            fence[0],
        ]
        end = fence.end()
    return "".join(parts) + PATH_IN_CODE.sub(name, LINK_OUT.sub(link, markdown[end:]))


def on_files(files: Any, config: Any) -> Any:
    """Add the pictures of the benchmarks, which the pages show from where they are kept."""
    from mkdocs.structure.files import File

    for page in (ROOT / "docs").glob("*.md"):
        for path in LINK_OUT.findall(page.read_text(encoding="utf-8")):
            if (
                path.endswith(".png")
                and files.get_file_from_path(path) is None
                and (ROOT / path).exists()
            ):
                files.append(
                    File.generated(config, path, abs_src_path=str(ROOT / path))
                )
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    return link_out(expand(markdown), config["extra"]["repository"])
