"""``brainy migrate rate``."""

from __future__ import annotations

from typing import Annotated

import typer

from brainy.cli.migration_view import report
from brainy.cli.output import JsonOption, current
from brainy.cli.target import CoordinatorOption, DirectoryOption, NamespaceOption, connect, run
from brainy.cli.turns import IdArgument, by_whom
from brainy.errors import InvalidRequestError
from brainy.sdk.migration import Migration

_AUTO = "auto"


def rate(
    migration_id: IdArgument,
    items_per_second: Annotated[
        str, typer.Option(metavar="N|auto", help="Items a second that each node may read, and may index.")
    ],
    namespace: NamespaceOption = None,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Say how fast the copy of a running migration may be. It counts at once.

    With auto the nodes slow down by the latency of their own searches and by the store, as they do if nobody says
    anything. Exit status 4 once there is nothing left to copy.
    """
    wanted = _parsed(items_per_second)

    async def ask() -> Migration:
        async with connect(namespace, None, coordinator, directory) as brainy:
            return await brainy.set_copy_rate(migration_id, wanted, requested_by=by_whom())

    report(run(ask()), current(), ended=False)


def _parsed(text: str) -> float | None:
    if text == _AUTO:
        return None
    try:
        return float(text)
    except ValueError:
        raise InvalidRequestError("a rate is a number of items a second, or auto", rate=text) from None


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(rate)
