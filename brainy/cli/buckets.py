"""``brainy backup``: on the bucket itself, without a cluster."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from brainy.bucket import layout
from brainy.cli.output import JsonOption, Output, current
from brainy.cli.target import NamespaceArgument, bucket, run
from brainy.dataset.base import ItemBatch
from brainy.dataset.snapshot import stream_current
from brainy.errors import NotFoundError, PreconditionError
from brainy.legacy.backup import BackupCounts, write_backup
from brainy.legacy.survey import survey
from brainy.store.base import ObjectStore


def backup(
    namespace: NamespaceArgument,
    output_file: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The backup file; replaced if it exists.")
    ],
    json: JsonOption = False,
) -> None:
    """Write the current state of a namespace to one file in Brainy's own backup format."""
    if not output_file.parent.is_dir():
        raise PreconditionError(
            "the directory of the backup file does not exist",
            remedy="create it",
            directory=output_file.parent.resolve(),
        )
    output = current()
    counts = run(_backup(bucket(namespace), output_file, output))
    found = {"file": str(output_file), "nouns": counts.nouns, "verbs": counts.verbs, "bytes": counts.bytes}
    output.result(
        found,
        lambda console: console.print(
            f"{counts.nouns:,} nouns and {counts.verbs:,} verbs in {escape(str(output_file))} "
            f"({counts.bytes / 1e6:,.1f} MB)"
        ),
    )


async def _backup(store: ObjectStore, path: Path, output: Output) -> BackupCounts:
    done = 0
    try:
        if (await survey(store)).empty and await store.get(layout.ROUTING) is None:
            # A mistyped prefix must not look like a backup that succeeded.
            raise NotFoundError(
                "nothing is stored here", reason="UNKNOWN_NAMESPACE", remedy="check bucket and prefix; no file was made"
            )
        with output.progress("reading the namespace") as show:

            async def counted() -> AsyncIterator[ItemBatch]:
                nonlocal done
                async for batch in stream_current(store):
                    done += len(batch.nouns) + len(batch.verbs)
                    show(done, None)
                    yield batch

            return await write_backup(path, counted())
    finally:
        await store.close()
