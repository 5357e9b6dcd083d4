"""Figures and their bars: printed as a table, written as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the report. ``ok`` is None where no bar is set."""

    name: str
    value: str
    bar: str = ""
    ok: bool | None = None
    #: What the value was made of, for the JSON file.
    raw: dict[str, object] = field(default_factory=dict)


def at_least(name: str, value: float, bar: float, *, shown: str = "", raw: dict[str, object] | None = None) -> Figure:
    """A figure that must not be lower than its bar."""
    return Figure(name=name, value=shown or f"{value:.2f}", bar=f"≥ {bar:g}", ok=value >= bar, raw=raw or {})


def at_most(name: str, value: float, bar: float, *, shown: str = "", raw: dict[str, object] | None = None) -> Figure:
    """A figure that must not be higher than its bar."""
    return Figure(name=name, value=shown or f"{value:.2f}", bar=f"≤ {bar:g}", ok=value <= bar, raw=raw or {})


class Report:
    """Shows each figure as soon as it is known."""

    def __init__(self, *, patience_seconds: float = 60.0) -> None:
        #: How long a measurement waits for others to leave the machine alone.
        self.patience_seconds = patience_seconds
        #: Largest share of the cores that others took during a measurement that counts.
        self.disturbance = 0.0
        self.figures: list[Figure] = []
        self._console = Console(stderr=True, highlight=False)

    def add(self, figure: Figure) -> None:
        """Take a figure."""
        self.figures.append(figure)
        self.say(f"{figure.name}: {figure.value} {figure.bar}")

    def say(self, text: str) -> None:
        """Say what is going on."""
        self._console.print(text, markup=False, soft_wrap=True)

    @property
    def short(self) -> list[Figure]:
        """Figures that missed their bar."""
        return [figure for figure in self.figures if figure.ok is False]

    def show(self) -> None:
        """Print the table."""
        table = Table("figure", "value", "bar", "")
        for figure in self.figures:
            state = {True: "ok", False: "SHORT", None: ""}[figure.ok]
            table.add_row(figure.name, figure.value, figure.bar, state)
        Console(width=None if Console().is_terminal else 140).print(table)

    def write(self, path: Path, about: dict[str, object]) -> None:
        """Write everything as JSON."""
        body = {**about, "figures": [asdict(figure) for figure in self.figures]}
        path.write_bytes(orjson.dumps(body, option=orjson.OPT_INDENT_2))
