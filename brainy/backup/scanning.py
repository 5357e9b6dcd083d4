"""A large JSON document cut into its parts, without parsing them and without reading it whole.

The scanner walks over a memory-mapped file and finds where values begin and end: it looks only at quotes and
brackets, so the hundreds of digits of a vector cost a skip. What it hands out are slices, to be parsed by whoever
wants them. It trusts nothing: commas, colons and brackets must be where JSON has them.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from typing import TypeAlias

from brainy.errors import CorruptDataError

Buffer: TypeAlias = mmap.mmap | bytes

#: An element may have so many bytes: larger than any item, and small beside a machine's memory.
MAX_ELEMENT_BYTES = 64 << 20

_SPACE = re.compile(rb"[ \t\n\r]*")
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
# Alternatives that begin with a literal let the matcher skip to the next one in one go.
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|\{|\}|\[|\]', re.DOTALL)
_SCALAR = re.compile(rb"[^\s,:\[\]{}\"]+")
_OPEN, _CLOSE = b"{[", b"}]"


class Scanner:
    """A place in a document."""

    def __init__(self, data: Buffer) -> None:
        self.data = data
        self.at = 0
        if data[:3] == b"\xef\xbb\xbf":
            self.at = 3

    def peek(self) -> bytes:
        """Return the next byte that is no white space; b"" at the end."""
        found = _SPACE.match(self.data, self.at)
        self.at = found.end() if found else self.at
        return self.data[self.at : self.at + 1]

    def expect(self, byte: bytes) -> None:
        """Step over a byte.

        Raises:
            CorruptDataError: another one is there.
        """
        if self.peek() != byte:
            raise self.error(f"{byte.decode()} is missing")
        self.at += 1

    def text(self) -> bytes:
        """Return the string that begins here, quotes included, and step over it."""
        self.peek()
        found = _STRING.match(self.data, self.at)
        if found is None:
            raise self.error("a string is missing or does not end")
        self.at = found.end()
        return found[0]

    def skip(self) -> tuple[int, int]:
        """Step over one value; returns where it begins and ends."""
        first = self.peek()
        begin = self.at
        if first == b'"':
            self.text()
        elif first and first in _OPEN:
            self.at = self._closing(begin)
        else:
            found = _SCALAR.match(self.data, begin)
            if found is None:
                raise self.error("a value is missing")
            self.at = found.end()
        return begin, self.at

    def value(self) -> bytes:
        """Return the bytes of one value and step over it.

        Raises:
            CorruptDataError: it does not end, or has over ``MAX_ELEMENT_BYTES``.
        """
        begin, end = self.skip()
        if end - begin > MAX_ELEMENT_BYTES:
            self.at = begin
            raise self.error("a value is larger than 64 MiB")
        return bytes(self.data[begin:end])

    def members(self) -> Iterator[bytes]:
        """Yield the keys of the object that begins here, quotes included; the caller steps over each value."""
        self.expect(b"{")
        if self.peek() == b"}":
            self.at += 1
            return
        while True:
            key = self.text()
            self.expect(b":")
            yield key
            if self.peek() == b"}":
                self.at += 1
                return
            self.expect(b",")

    def elements(self) -> Iterator[bytes]:
        """Yield the bytes of each element of the array that begins here."""
        self.expect(b"[")
        if self.peek() == b"]":
            self.at += 1
            return
        while True:
            yield self.value()
            if self.peek() == b"]":
                self.at += 1
                return
            self.expect(b",")

    def end(self) -> None:
        """Make sure that nothing follows."""
        if self.peek():
            raise self.error("something follows after the end")

    def error(self, what: str) -> CorruptDataError:
        """Build the error that names this place."""
        return not_whole(what, at=self.at)

    def _closing(self, begin: int) -> int:
        depth = 0
        for found in _TOKEN.finditer(self.data, begin):
            token = found[0]
            if token in (b"{", b"["):
                depth += 1
            elif token in (b"}", b"]"):
                depth -= 1
                if not depth:
                    return found.end()
        raise self.error("a bracket is never closed")


def not_whole(what: str, **fields: object) -> CorruptDataError:
    """Build the error of a backup file that is damaged."""
    return CorruptDataError(
        f"not a whole backup: {what}",
        remedy="take another copy of the file; nothing was changed",
        **fields,  # type: ignore[arg-type]
    )
