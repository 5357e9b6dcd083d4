"""``brainy generations``: which there are, and what becomes of those that are not served any more."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from brainy.cli.durations import seconds_of
from brainy.cli.generations_view import show
from brainy.cli.output import JsonOption, current
from brainy.cli.target import CoordinatorOption, DirectoryOption, OptionalNamespace, connect, run
from brainy.cli.turns import by_whom
from brainy.sdk.generations import Generation


def generations(
    namespace: OptionalNamespace = None,
    keep: Annotated[int | None, typer.Option(metavar="G", help="Do not delete this generation.")] = None,
    delete: Annotated[
        int | None, typer.Option(metavar="G", help="Delete this generation after --retain, counted from now.")
    ] = None,
    retain: Annotated[str, typer.Option(metavar="TIME", help="With --delete: 7d, 12h, ...")] = "7d",
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """List generations with state, size and when they are deleted; or say what is to become of one.

    Exit status 4 if that one is in service, or its deletion has begun.
    """
    if keep is not None and delete is not None:
        raise typer.BadParameter("say either --keep or --delete")
    seconds = seconds_of(retain)

    async def ask() -> list[Generation]:
        async with connect(namespace, None, coordinator, directory) as brainy:
            if keep is not None:
                return [await brainy.keep_generation(keep, requested_by=by_whom())]
            if delete is not None:
                return [await brainy.retain_generation(delete, seconds, requested_by=by_whom())]
            return await brainy.list_generations(sizes=True)

    found = run(ask())
    current().result([asdict(each) for each in found], lambda console: show(console, found))
