"""Sparse data: nouns without vectors and verbs, as a value or a file, read row by row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import orjson

from brainy.errors import InvalidRequestError, NotFoundError

#: The guide's object, a list of nouns, or a file of either.
SparseLike: TypeAlias = Mapping[str, Any] | Sequence[Any] | str | Path

_LINE_SUFFIXES = (".jsonl", ".ndjson")
_BOM = b"\xef\xbb\xbf"
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Row:
    """One item of the data, as it came."""

    #: Its place, from 1: among the nouns or the verbs, or its line in a file of lines.
    number: int
    value: Any


class SparseData(Protocol):
    """Rows, which can be read again and again."""

    def count(self) -> int:
        """How many rows there are, nouns and verbs."""

    def nouns(self) -> Iterator[Row]:
        """Every row that is no verb, whatever else is wrong with it."""

    def verbs(self) -> Iterator[Row]:
        """Every row that names two ends."""


class ParsedData:
    """What ``backup`` and the guide call sparse data: ``{nouns: [...], verbs: [...], version}``."""

    def __init__(self, nouns: Sequence[Any], verbs: Sequence[Any]) -> None:
        """Take the rows."""
        self._nouns = nouns
        self._verbs = verbs

    @classmethod
    def of(cls, value: Any) -> ParsedData:
        """Take the guide's object, or a bare list of nouns.

        Raises:
            InvalidRequestError: it is neither.
        """
        if isinstance(value, Mapping):
            parts = [value.get("nouns", ()), value.get("verbs", ())]
            if ("nouns" in value or "verbs" in value) and all(isinstance(part, list | tuple) for part in parts):
                return cls(parts[0], parts[1])
        elif isinstance(value, list | tuple):
            return cls(value, ())
        raise InvalidRequestError(
            "not sparse data",
            remedy="give {nouns: [{id, metadata, vector?}], verbs: [...], version}, or lines of such rows; "
            "nothing was written",
            type=type(value).__name__,
        )

    def count(self) -> int:
        """Return the number of rows."""
        return len(self._nouns) + len(self._verbs)

    def nouns(self) -> Iterator[Row]:
        """Yield the nouns."""
        return (Row(number, value) for number, value in enumerate(self._nouns, 1))

    def verbs(self) -> Iterator[Row]:
        """Yield the verbs."""
        return (Row(number, value) for number, value in enumerate(self._verbs, 1))


class JsonLines:
    """A file with one row a line, in any order; read anew for nouns and for verbs, and never held as a whole."""

    def __init__(self, path: Path) -> None:
        """Remember the file."""
        self._path = path

    def count(self) -> int:
        """Return the number of lines."""
        lines, last = 0, b"\n"
        with self._path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                lines += chunk.count(b"\n")
                last = chunk[-1:]
        return lines + (last != b"\n")

    def nouns(self) -> Iterator[Row]:
        """Yield every line that is no verb."""
        return (row for row in self._rows() if not _is_verb(row.value))

    def verbs(self) -> Iterator[Row]:
        """Yield every line that names two ends."""
        return (row for row in self._rows() if _is_verb(row.value))

    def _rows(self) -> Iterator[Row]:
        with self._path.open("rb") as file:
            for number, line in enumerate(file, 1):
                text = line.removeprefix(_BOM).strip() if number == 1 else line.strip()
                if text:
                    yield Row(number, _parsed(text))


def open_sparse(data: SparseLike) -> SparseData:
    """Return the rows of a value, or of a file: JSON, or JSON Lines (``.jsonl``, ``.ndjson``, or by its first line).

    Raises:
        NotFoundError: no such file.
        InvalidRequestError: it is no sparse data.
    """
    if not isinstance(data, str | Path):
        return ParsedData.of(data)
    path = Path(data)
    if not path.is_file():
        raise NotFoundError("no such file", remedy="check the path; nothing was written", file=str(path)[:200])
    if path.suffix.lower() in _LINE_SUFFIXES:
        return JsonLines(path)
    with path.open("rb") as file:
        first = _parsed(file.readline().removeprefix(_BOM).strip())
    if isinstance(first, Mapping) and "nouns" not in first and "verbs" not in first:
        return JsonLines(path)
    whole = _parsed(path.read_bytes().removeprefix(_BOM))
    if isinstance(whole, Unreadable):
        raise InvalidRequestError(
            "the file is not JSON",
            remedy="give JSON, or JSON Lines with the suffix .jsonl; nothing was written",
            file=path,
            cause=whole.why,
        )
    return ParsedData.of(whole)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands for a line that is no JSON."""

    why: str


def _parsed(text: bytes) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return Unreadable(str(error))


def _is_verb(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and ("sourceId" in value or "source" in value)
        and ("targetId" in value or "target" in value)
    )
