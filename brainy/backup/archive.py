"""The container of a native backup: a ZIP archive (ZIP64, entries stored, not deflated) that ordinary tools open.

Entries are appended one after the other; ``manifest.json`` is the last. The archive's comment ends with the SHA-256
of every byte before those 64 digits, so that no byte of the file, be it of an entry, of a header or of the directory,
can change unnoticed.

Until it is sealed the archive has no directory. ``ArchiveWriter.entries`` and ``end`` say what is complete; a later
process hands them back in, cuts off what was begun after them, and goes on.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import mmap
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from brainy.backup.scanning import not_whole
from brainy.errors import InvalidRequestError, PreconditionError

#: What the comment says before the digits.
_COMMENT: Final = b"brainy-backup/1 sha256="
_DIGITS: Final = 64
_CHUNK: Final = 4 << 20
#: Archives do not tell when they were made: equal contents are equal bytes.
_DATE: Final = (1980, 1, 1, 0, 0, 0)
ZIP_MAGIC: Final = b"PK\x03\x04"


class Entry(BaseModel):
    """A complete entry of an archive."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    #: Where its header begins.
    offset: int
    size: int
    crc32: int
    sha256: str


class ArchiveWriter:
    """Appends entries to an archive that is being made."""

    def __init__(self, path: Path, *, entries: Sequence[Entry] = (), end: int = 0) -> None:
        """Create the file, or go on after ``entries``, which end at ``end``; what lies behind is cut off.

        Raises:
            PreconditionError: another process is making it.
        """
        self._file: IO[bytes] = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise PreconditionError(
                "another process is making this backup", remedy="wait for it, or name another file", file=path
            ) from None
        self._file.truncate(end)
        # A file without a directory is "not a ZIP archive": mode "a" then appends to it.
        self._zip = zipfile.ZipFile(self._file, "a", zipfile.ZIP_STORED, allowZip64=True)
        self.entries: list[Entry] = []
        for entry in entries:
            info = _placed(entry)
            self._zip.filelist.append(info)
            self._zip.NameToInfo[info.filename] = info
            self.entries.append(entry)

    @property
    def end(self) -> int:
        """Where the next entry begins."""
        return self._zip.start_dir

    def add_file(self, name: str, path: Path) -> Entry:
        """Append a file's bytes; durable when this returns."""
        with path.open("rb") as source:
            return self._add(name, source, path.stat().st_size)

    def add_bytes(self, name: str, body: bytes) -> Entry:
        """Append some bytes; durable when this returns."""
        return self._add(name, io.BytesIO(body), len(body))

    def _add(self, name: str, source: IO[bytes], size: int) -> Entry:
        offset = self.end
        info = _info(name)
        info.file_size = size
        state = hashlib.sha256()
        with self._zip.open(info, "w", force_zip64=size >= zipfile.ZIP64_LIMIT) as target:
            while chunk := source.read(_CHUNK):
                state.update(chunk)
                target.write(chunk)
        self._file.flush()
        os.fsync(self._file.fileno())
        entry = Entry(name=name, offset=offset, size=size, crc32=info.CRC, sha256=state.hexdigest())
        self.entries.append(entry)
        return entry

    def read(self, entry: Entry) -> bytes:
        """Return the bytes of a complete entry, as far as they are there."""
        self._file.flush()
        self._file.seek(_data_begin(self._file, _placed(entry)))
        return self._file.read(entry.size)

    def seal(self) -> int:
        """Write the directory and the hash of it all; returns the size of the file, which is on disk then."""
        self._zip.comment = _COMMENT + b"0" * _DIGITS
        self._zip.close()
        self._file.seek(0, os.SEEK_END)
        size = self._file.tell()
        state = hashlib.sha256()
        self._file.seek(0)
        left = size - _DIGITS
        while left:
            chunk = self._file.read(min(_CHUNK, left))
            state.update(chunk)
            left -= len(chunk)
        self._file.seek(size - _DIGITS)
        self._file.write(state.hexdigest().encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return size

    def abandon(self) -> None:
        """Let go of the file as it is."""
        self._zip.fp = None  # or it would write a directory
        self._file.close()


class Archive:
    """A sealed archive, mapped into memory; its hash was checked when it was opened."""

    def __init__(self, path: Path) -> None:
        """Open and hash it.

        Raises:
            CorruptDataError: a byte is not the one that was sealed, or the file has been cut short.
        """
        self.path = path
        with path.open("rb") as file:
            _check_seal(file)
        try:
            with zipfile.ZipFile(path) as archive:
                self._infos = {info.filename: info for info in archive.infolist()}
                if len(self._infos) != len(archive.infolist()):
                    raise not_whole("two entries have one name", file=path)
                with path.open("rb") as file:
                    self._begins = {name: _data_begin(file, info) for name, info in self._infos.items()}
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise not_whole("it cannot be read as an archive", file=path, cause=error) from error
        self._map: pa.MemoryMappedFile = pa.memory_map(str(path))

    @property
    def names(self) -> list[str]:
        """Names of the entries, in order."""
        return list(self._infos)

    def entry(self, name: str) -> pa.Buffer:
        """Return an entry's bytes without copying them.

        Raises:
            CorruptDataError: there is no such entry, or it is not stored plainly.
        """
        info = self._infos.get(name)
        if info is None or info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 0x1:
            raise not_whole(f"{name} is missing", file=self.path)
        self._map.seek(self._begins[name])
        return self._map.read_buffer(info.file_size)

    def close(self) -> None:
        """Unmap it; buffers that were handed out stay valid."""
        self._map.close()


def sha256_of(body: pa.Buffer | bytes) -> str:
    """Hash some bytes."""
    return hashlib.sha256(body).hexdigest()


def _check_seal(file: IO[bytes]) -> None:
    size = os.fstat(file.fileno()).st_size
    tail = len(_COMMENT) + _DIGITS
    if size <= tail:
        raise not_whole("it is cut short")
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:4] != ZIP_MAGIC:
            raise InvalidRequestError(
                "not a backup: neither JSON nor an archive", remedy="name a file that brainy backup wrote"
            )
        if data[size - tail : size - _DIGITS] != _COMMENT:
            raise not_whole("it does not end with its hash: cut short, or not written by brainy backup")
        state = hashlib.sha256()
        with memoryview(data) as view:
            state.update(view[: size - _DIGITS])
        if data[size - _DIGITS :] != state.hexdigest().encode():
            raise not_whole("its bytes are not those that were sealed")


def _data_begin(file: IO[bytes], info: zipfile.ZipInfo) -> int:
    # The local header repeats name and extra field, whose lengths may differ from the directory's.
    file.seek(info.header_offset)
    header = file.read(30)
    if len(header) < 30 or header[:4] != ZIP_MAGIC:
        raise ValueError("an entry has no header")
    return info.header_offset + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")


def _placed(entry: Entry) -> zipfile.ZipInfo:
    info = _info(entry.name)
    info.header_offset, info.CRC = entry.offset, entry.crc32
    info.file_size = info.compress_size = entry.size
    return info


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _DATE)
    info.compress_type = zipfile.ZIP_STORED
    info.external_attr = 0o644 << 16
    return info
