"""From a file of any format to a checked backup."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from brainy.backup.archive import ZIP_MAGIC
from brainy.backup.document_reading import check_document
from brainy.backup.native_reading import CheckedNative
from brainy.backup.values import CheckedBackup, Progress, no_progress
from brainy.errors import InvalidRequestError, NotFoundError


def check_backup(
    source: Path | dict[str, Any], *, accept_rewritten: bool = False, on_progress: Progress = no_progress
) -> CheckedBackup:
    """Read a backup from its first to its last byte and return it if it is whole.

    Args:
        source: a file of either format, or Brainy's JSON as Python values.
        accept_rewritten: see ``check_document``.
        on_progress: told of items read.

    Raises:
        NotFoundError: there is no such file, or one that an incremental backup builds on is missing.
        CorruptDataError: it is not whole. Nothing of it is used.
        InvalidRequestError: it is no backup.
    """
    if isinstance(source, dict):
        return check_document(source, accept_rewritten=accept_rewritten, on_progress=on_progress)
    if not source.is_file():
        raise NotFoundError("there is no such backup file", remedy="check the path", file=source)
    with source.open("rb") as file:
        begin = file.read(4)
    if begin == ZIP_MAGIC:
        return CheckedNative(source, on_progress)
    if begin[:2] == b"\x1f\x8b":
        raise InvalidRequestError(
            "a compressed file is no backup", remedy="decompress it with gunzip first", file=source
        )
    return check_document(source, accept_rewritten=accept_rewritten, on_progress=on_progress)
