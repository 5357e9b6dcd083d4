"""Preflight checks that try something out: permissions at the store, a backup."""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

from brainy.backup.opening import check_backup
from brainy.errors import BrainyError
from brainy.ids import Ids
from brainy.store.base import ObjectStore
from brainy.store.capability import PROBE_PREFIX
from brainy_coordinator.migration.observation import Check


def untried(name: str) -> Check:
    """Return what a dry run says of a check that would have to write."""
    return Check(name=name, passed=True, detail="not tried: a dry run writes nothing", tried=False)


async def permissions(store: ObjectStore, ids: Ids) -> Check:
    """Create, read back and delete an object under ``cluster/`` (three calls)."""
    key, body = f"{PROBE_PREFIX}permissions-{ids.short(12)}", ids.nonce()
    problem, doing = "", "create"
    try:
        await store.put_if_absent(key, body)
        doing = "read"
        found = await store.get(key)
        if found is None or found.body != body:
            problem = "an object under cluster/ does not read back as written"
        doing = "delete"
        await store.delete(key)
    except BrainyError as error:
        problem = f"cannot {doing} an object under cluster/: {error.message}"
        with contextlib.suppress(BrainyError):
            await store.delete(key)
    return Check(
        name="permissions",
        passed=not problem,
        detail=problem or "objects under cluster/ can be created, read and deleted",
        reason="PERMISSION",
    )


class BackupChecks:
    """Backups read from the first to the last byte, each file once: a call that was given up goes on here.

    What is remembered is of the file as it was, by its size and time.
    """

    def __init__(self) -> None:
        self._begun: dict[tuple[str, int, int], asyncio.Task[Check]] = {}

    async def check(self, path: str) -> Check:
        """Say whether a backup is whole; nothing is asked where none is wanted."""
        if not path:
            return Check(name="backup_present", passed=True, detail="none is asked for")
        try:
            found = await asyncio.to_thread(os.stat, path)
        except OSError as error:
            return Check(name="backup_present", passed=False, detail=f"{path}: {error.strerror}")
        key = (path, found.st_size, found.st_mtime_ns)
        task = self._begun.get(key)
        if task is None or (task.done() and not task.result().passed):
            task = self._begun[key] = asyncio.create_task(_read(path))
        return await asyncio.shield(task)


async def _read(path: str) -> Check:
    try:
        found = (await asyncio.to_thread(check_backup, Path(path))).verification
    except (BrainyError, OSError) as error:
        said = error.message if isinstance(error, BrainyError) else (error.strerror or str(error))
        return Check(name="backup_present", passed=False, detail=f"{path}: {said}")
    return Check(
        name="backup_present",
        passed=True,
        detail=f"{path} is whole: {found.nouns:,} nouns, {found.verbs:,} verbs",
    )
