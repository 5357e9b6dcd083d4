"""A quarantine as a directory: one file for each object, to be mended with any editor, and a manifest.

    DIR/manifest.json          what each file was: key, reason, size, SHA-256, and what belongs to it
    DIR/objects/<nr>-<name>    the bytes as they were

The manifest is written last: a directory without it is an export that was interrupted. A file is compared with its
SHA-256 there, so whoever mends one leaves the manifest alone.
"""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterable
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from brainy.bucket.quarantine import Kept
from brainy.errors import InvalidRequestError, PreconditionError

MANIFEST: Final = "manifest.json"
OBJECTS: Final = "objects"

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")


class ExportedObject(BaseModel):
    """A row of the manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str
    reason: str
    size: int
    #: Of the bytes as they were; None where they were not read.
    sha256: str | None
    #: Path in the directory; None where the bytes are not kept: the object of the source is the one copy.
    file: str | None
    #: The object that belongs to it, bytes in Base64.
    beside_key: str | None = None
    beside: str | None = None


class Export(BaseModel):
    """The manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int = 1
    namespace: str
    #: None for a bucket no cluster has served.
    generation: int | None
    objects: tuple[ExportedObject, ...] = ()


async def write_export(directory: Path, rows: AsyncIterable[Kept], *, namespace: str, generation: int | None) -> Export:
    """Write a directory; it may exist if it is empty.

    Raises:
        PreconditionError: it holds something already; nothing was written.
        BrainyError: the rows could not be read. What was written has no manifest.
    """
    _prepare(directory)
    objects: list[ExportedObject] = []
    async for row in rows:
        file = None
        if row.body is not None:
            name = _UNSAFE.sub("_", row.key.rpartition("/")[2])[-80:]
            file = f"{OBJECTS}/{len(objects) + 1:06d}-{name}"
            (directory / file).write_bytes(row.body)
        objects.append(
            ExportedObject(
                key=row.key,
                reason=row.reason,
                size=row.size,
                sha256=row.sha256,
                file=file,
                beside_key=row.beside_key,
                beside=None if row.beside is None else base64.b64encode(row.beside).decode(),
            )
        )
    export = Export(namespace=namespace, generation=generation, objects=tuple(objects))
    (directory / MANIFEST).write_text(export.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return export


def _prepare(directory: Path) -> None:
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise PreconditionError(
            "the directory of an export must be empty", remedy="name another one", directory=directory.resolve()
        )
    (directory / OBJECTS).mkdir(parents=True, exist_ok=True)


def read_export(directory: Path) -> Export:
    """Read the manifest of a directory.

    Raises:
        InvalidRequestError: there is none, or it is not one of ours.
    """
    try:
        return Export.model_validate_json((directory / MANIFEST).read_bytes())
    except OSError as error:
        raise InvalidRequestError(
            "not a directory of exported objects",
            remedy="make one with brainy quarantine export",
            directory=directory.resolve(),
            cause=error.strerror or error,
        ) from error
    except ValidationError as error:
        raise InvalidRequestError(
            "the manifest of the export was altered",
            remedy="mend the files below objects/ and leave manifest.json as it was; nothing was written",
            directory=directory.resolve(),
            cause=error.errors()[0]["msg"],
        ) from error


def exported_body(directory: Path, row: ExportedObject) -> bytes | None:
    """Return the bytes of a row as they are now; None where its file is gone or never was.

    Raises:
        InvalidRequestError: the manifest names a file outside the directory.
    """
    if row.file is None:
        return None
    path = (directory / row.file).resolve()
    if not path.is_relative_to(directory.resolve()):
        raise InvalidRequestError(
            "the manifest names a file outside the export", remedy="use the manifest as exported", file=row.file
        )
    try:
        return path.read_bytes()
    except OSError:
        return None


def beside_of(row: ExportedObject) -> dict[str, bytes]:
    """Return what belongs to a row, by key.

    Raises:
        InvalidRequestError: the manifest was altered.
    """
    if row.beside_key is None or row.beside is None:
        return {}
    try:
        return {row.beside_key: base64.b64decode(row.beside, validate=True)}
    except ValueError as error:
        raise InvalidRequestError(
            "the manifest of the export was altered", remedy="use the manifest as exported", key=row.key
        ) from error
