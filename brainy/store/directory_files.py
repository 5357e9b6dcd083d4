"""The blocking half of the directory store: one file a key, atomic and durable writes.

**Protocol.** A body is first written to a file of its own in the working area and made durable (fsync), then it
appears under its name in one step:

* ``put`` and ``put_if_match``: ``rename`` over the name, under an ``flock`` on one of 64 lock files chosen by
  the key. ``put_if_match`` compares the ETag under it, so no write comes between comparing and replacing.
* ``put_if_absent``: ``link``, which the kernel refuses when the name exists. It needs no lock: a compare can
  only succeed on an existing object, and deletes, which could make room in between, take the lock.

Then the directory is made durable. *Crash* before the step: nothing happened, a temporary file is left and is
never listed. Crash after it: the object is there; only its durability over a power failure is open until the
fsync of the directory, and no caller has been told of success yet. The kernel drops locks of dead processes.

An ETag is made of inode, modification time and size. Every write sets a modification time whose last digits are
random, because the clock of the file system is coarse and inodes are used again: no two writes share an ETag.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from brainy.errors import BrainyError, InvalidRequestError, PermissionDeniedError, UnavailableError
from brainy.ids import Ids
from brainy.store.base import PutOutcome, PutState, StoredObject
from brainy.store.filenames import WORK_DIRECTORY, key_path, plain_path
from brainy.store.keys import check_key

_LOCKS = 64
_ABANDONED_SECONDS = 3600.0
_ATTRIBUTE = "user.brainy.metadata"
_MISSING = (errno.ENOENT, errno.ENOTDIR)
_NO_ATTRIBUTE = (errno.ENODATA, errno.ENOTSUP, errno.EPERM)
R = TypeVar("R")


def etag_of(status: os.stat_result) -> str:
    """Return the ETag of a file."""
    return f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"


def translate(error: OSError, key: str) -> BrainyError:
    """Return the store's error for one of the operating system."""
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return PermissionDeniedError("the directory refuses access", remedy="check owner and mode", key=key)
    if error.errno == errno.ENAMETOOLONG:
        return InvalidRequestError(
            "the file system cannot hold this key", remedy="shorten the id or the prefix", key=key[:80]
        )
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UnavailableError("the disk is full", reason="STORE_UNAVAILABLE", remedy="free some space", key=key)
    return UnavailableError(
        "the directory failed",
        remedy="check the disk and the mount; the call is safe to repeat",
        reason="STORE_UNAVAILABLE",
        key=key,
        cause=error,
    )


class DirectoryFiles:
    """Reads and writes objects of one directory. Blocking; safe for threads and processes."""

    def __init__(self, directory: str, *, ids: Ids, durable: bool = True) -> None:
        self.root = directory.rstrip("/") or "/"
        self._work = f"{self.root}/{WORK_DIRECTORY}"
        self._ids = ids
        self._durable = durable
        self._swept = False

    def read(self, key: str) -> StoredObject | None:
        """Read a whole object, or None."""
        check_key(key)

        def load(descriptor: int, status: os.stat_result) -> StoredObject:
            return StoredObject(
                key=key,
                body=_read(descriptor, 0, status.st_size),
                etag=etag_of(status),
                last_modified=status.st_mtime,
                user_metadata=_load_metadata(descriptor),
            )

        return self._opened(key, load)

    def read_range(self, key: str, start: int, length: int) -> bytes | None:
        """Read a part of an object, or None."""
        check_key(key)
        return self._opened(
            key, lambda descriptor, status: _read(descriptor, start, min(length, status.st_size - start))
        )

    def read_many(self, keys: Sequence[str]) -> list[StoredObject | Exception | None]:
        """Read many objects; a failure stands in its place."""
        found: list[StoredObject | Exception | None] = []
        for key in keys:
            try:
                found.append(self.read(key))
            except BrainyError as error:
                found.append(error)
        return found

    def write(self, key: str, body: bytes, metadata: Mapping[str, str] | None) -> str:
        """Create or replace."""
        return self._guarded(key, lambda: self._replace(key, body, metadata, lambda current: True).etag)

    def create(self, key: str, body: bytes) -> PutOutcome:
        """Create unless the key exists."""

        def attempt() -> PutOutcome:
            plain = plain_path(key)
            if plain is not None and os.path.lexists(f"{self.root}/{plain}"):
                return PutOutcome(state=PutState.LOST)
            path = f"{self.root}/{key_path(key)}"
            with self._temporary(body, None) as (temporary, etag):
                try:
                    self._appear(os.link, temporary, path)
                except FileExistsError:
                    return PutOutcome(state=PutState.LOST)
                self._sync_parent(path)
            return PutOutcome(state=PutState.WON, etag=etag)

        return self._guarded(key, attempt)

    def replace(self, key: str, body: bytes, etag: str) -> PutOutcome:
        """Replace when the ETag is the one given."""
        return self._guarded(
            key, lambda: self._replace(key, body, None, lambda current: bool(etag) and current == etag)
        )

    def remove(self, key: str) -> None:
        """Delete, if it is there."""

        def attempt() -> None:
            with self._locked(key):
                for path in self._paths(key):
                    try:
                        os.unlink(path)  # noqa: PTH108 - a string path, many a second
                    except OSError as error:
                        if error.errno not in (*_MISSING, errno.EISDIR):
                            raise
                    else:
                        self._sync_parent(path)

        self._guarded(key, attempt)

    def _guarded(self, key: str, action: Callable[[], R]) -> R:
        check_key(key)
        try:
            return action()
        except OSError as error:
            raise translate(error, key) from error

    def _paths(self, key: str) -> tuple[str, ...]:
        plain = plain_path(key)
        own = f"{self.root}/{key_path(key)}"
        return (own,) if plain is None else (own, f"{self.root}/{plain}")

    def _opened(self, key: str, action: Callable[[int, os.stat_result], R]) -> R | None:
        for path in self._paths(key):
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    return action(descriptor, os.fstat(descriptor))
                finally:
                    os.close(descriptor)
            except OSError as error:
                if error.errno not in (*_MISSING, errno.EISDIR):
                    raise translate(error, key) from error
        return None

    def _current_etag(self, key: str) -> str | None:
        for path in self._paths(key):
            try:
                return etag_of(os.stat(path))  # noqa: PTH116 - a string path, many a second
            except OSError as error:
                if error.errno not in _MISSING:
                    raise
        return None

    def _replace(
        self, key: str, body: bytes, metadata: Mapping[str, str] | None, allowed: Callable[[str | None], bool]
    ) -> PutOutcome:
        own, *plain = self._paths(key)
        with self._temporary(body, metadata) as (temporary, etag), self._locked(key):
            if not allowed(self._current_etag(key)):
                return PutOutcome(state=PutState.LOST)
            self._appear(os.rename, temporary, own)
            for path in plain:
                with contextlib.suppress(OSError):
                    os.unlink(path)  # noqa: PTH108 - a string path
            self._sync_parent(own)
        return PutOutcome(state=PutState.WON, etag=etag)

    @contextlib.contextmanager
    def _temporary(self, body: bytes, metadata: Mapping[str, str] | None) -> Iterator[tuple[str, str]]:
        path = f"{self._work}/{os.getpid():x}-{self._ids.nonce().hex()}%W"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            descriptor = os.open(path, flags, 0o644)
        except FileNotFoundError:
            os.makedirs(self._work, exist_ok=True)  # noqa: PTH103 - a string path
            descriptor = os.open(path, flags, 0o644)
        try:
            try:
                view = memoryview(body)
                while view:
                    view = view[os.write(descriptor, view) :]
                if metadata:
                    _store_metadata(descriptor, metadata)
                stamp = os.fstat(descriptor).st_mtime_ns
                fresh = stamp - stamp % 1_000_000 + int(self._ids.jitter(0, 999_999))
                os.utime(descriptor, ns=(fresh, fresh))
                status = os.fstat(descriptor)
                if self._durable:
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if not self._swept:
                self._swept = True
                self._sweep(status.st_mtime - _ABANDONED_SECONDS)
            yield path, etag_of(status)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)  # noqa: PTH108 - a string path

    def _sweep(self, before: float) -> None:
        """Remove what crashed writers left behind. One that only slept fails, and tells its caller so."""
        with os.scandir(self._work) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    if not entry.name.startswith("lock-") and entry.stat().st_mtime < before:
                        os.unlink(entry.path)  # noqa: PTH108 - a string path

    @contextlib.contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        path = f"{self._work}/lock-{zlib.crc32(key.encode()) % _LOCKS}%W"
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            descriptor = os.open(path, flags, 0o644)
        except FileNotFoundError:
            os.makedirs(self._work, exist_ok=True)  # noqa: PTH103 - a string path
            descriptor = os.open(path, flags, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)  # which also unlocks

    def _appear(self, step: Callable[[str, str], None], temporary: str, path: str) -> None:
        try:
            step(temporary, path)
        except FileNotFoundError:
            self._make_directory(path.rpartition("/")[0])
            step(temporary, path)

    def _make_directory(self, path: str) -> None:
        try:
            os.mkdir(path)  # noqa: PTH102 - a string path
        except FileExistsError:
            return
        except FileNotFoundError:
            self._make_directory(path.rpartition("/")[0])
            with contextlib.suppress(FileExistsError):
                os.mkdir(path)  # noqa: PTH102 - a string path
        self._sync_parent(path)

    def _sync_parent(self, path: str) -> None:
        if not self._durable:
            return
        descriptor = os.open(path.rpartition("/")[0] or "/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _read(descriptor: int, start: int, length: int) -> bytes:
    if length <= 0:
        return b""
    first = os.pread(descriptor, length, start)
    if len(first) == length:
        return first
    parts = [first]
    while parts[-1] and sum(map(len, parts)) < length:
        done = sum(map(len, parts))
        parts.append(os.pread(descriptor, length - done, start + done))
    return b"".join(parts)


def _store_metadata(descriptor: int, metadata: Mapping[str, str]) -> None:
    text = json.dumps({name.lower(): value for name, value in metadata.items()}).encode()
    try:
        os.setxattr(descriptor, _ATTRIBUTE, text)
    except OSError as error:
        # User metadata is a courtesy; a file system without attributes still holds the object.
        if error.errno not in _NO_ATTRIBUTE:
            raise


def _load_metadata(descriptor: int) -> dict[str, str]:
    try:
        text = os.getxattr(descriptor, _ATTRIBUTE)
    except OSError:
        return {}
    loaded: dict[str, str] = json.loads(text)
    return loaded
