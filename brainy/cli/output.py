"""How the command speaks: results on standard output, everything else on standard error."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

import numpy as np
import orjson
import typer
from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from brainy.errors import BrainyError

_WIDTH = 160
_JSON_OPTIONS = orjson.OPT_INDENT_2 | orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS


class Output:
    """Where results and remarks go."""

    def __init__(self, *, json: bool = False) -> None:
        self.json = json
        self.out = Console(highlight=False)
        self.err = Console(stderr=True, highlight=False)
        if not self.out.is_terminal:
            # A file or a pipe has no width; eighty columns would break ids and keys in two.
            self.out.width = max(self.out.width, _WIDTH)

    def result(self, value: object, human: Callable[[Console], None]) -> None:
        """Print a result: the value as one JSON document, or what ``human`` prints."""
        if self.json:
            typer.echo(orjson.dumps(value, default=_plain, option=_JSON_OPTIONS).decode())
        else:
            human(self.out)

    def remark(self, text: str) -> None:
        """Say something that is no result."""
        if not self.json:
            self.err.print(text)

    def error(self, error: BrainyError) -> None:
        """Print an error: what, where, what to do."""
        if self.json:
            body = {
                "error": {
                    "kind": type(error).__name__,
                    "reason": error.reason,
                    "message": error.message,
                    "where": error.fields,
                    "remedy": error.remedy,
                    "data_safe": error.data_safe,
                }
            }
            typer.echo(orjson.dumps(body).decode(), err=True)
            return
        self.err.print(f"[bold red]error:[/] {escape(error.message)} [dim]({error.reason})[/]", soft_wrap=True)
        for name, value in error.fields.items():
            self.err.print(f"  [dim]{escape(name)}:[/] {escape(value)}", soft_wrap=True)
        if not error.data_safe:
            self.err.print("  [yellow]it may have been done, wholly or in part[/]")
        if error.remedy:
            self.err.print(f"  [bold]what to do:[/] {escape(error.remedy)}", soft_wrap=True)

    @contextlib.contextmanager
    def progress(self, title: str) -> Iterator[Callable[[int, int | None], None]]:
        """Show a bar on standard error while the block runs; silent with --json or without a terminal.

        Yields:
            A function to call with (done, total); total None while it is not known.
        """
        if self.json or not self.err.is_terminal:
            yield lambda done, total: None
            return
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            MofNCompleteColumn(),
            _RateColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.err, transient=True) as bars:
            task = bars.add_task(title, total=None)
            yield lambda done, total: bars.update(task, completed=done, total=total)


class _RateColumn(ProgressColumn):
    """Steps a second, lately."""

    def render(self, task: Task) -> Text:
        """Return nothing while it is not known."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f}/s" if speed else "", style="dim")


_current = Output()


def begin(*, json: bool = False) -> None:
    """Set how the command that runs now speaks."""
    global _current
    _current = Output(json=json)


def current() -> Output:
    """Return the output of the command that runs."""
    return _current


def _remember(value: bool) -> bool:
    if value:
        begin(json=True)
    return value


#: The option every command has.
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.", callback=_remember)]


def table(title: str | None, *headers: str) -> Table:
    """Return an empty table in the house's style; headers that end with '#' are numbers."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="dim")
    for header in headers:
        number = header.endswith("#")
        made.add_column(header.removesuffix("#"), justify="right" if number else "left", overflow="fold")
    return made


def facts(console: Console, pairs: Mapping[str, object]) -> None:
    """Print names and values in two columns."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    for name, value in pairs.items():
        grid.add_row(name, escape(str(value)))
    console.print(grid)


def _plain(value: object) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, bytes):
        return orjson.Fragment(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"not a JSON value: {type(value).__name__}")
