"""Key to file name and back, for the directory store.

Almost every key is its own path: the tree can be read, copied and synchronised with ordinary tools. Only what a
file system cannot hold is escaped, and the rule looks at nothing but the key, so that several processes agree:

* ``%D`` at the end of a directory's name: the part holds a '.', or is empty, '.' or '..'. ``%F`` at the end of
  a file's name: the part holds no '.', or is '.' or '..'. So a file and a directory never want the same name,
  and ``nouns/a.json`` lives beside ``nouns/a.json/b.json``.
* ``%L`` at the end of a directory's name: the part goes on below (names are limited to 255 bytes).
* ``%25`` is a '%' that would be read as an escape; every other '%' stays.
* ``%W`` at the end: the store's own working area, never listed.

Files that other tools put into the directory lack the suffixes; ``plain_path`` gives the name they have.
"""

from __future__ import annotations

import re

#: The working area for temporary and lock files, at the top of the directory.
WORK_DIRECTORY = ".store%W"

_SPECIAL = ("", ".", "..")
_AMBIGUOUS = re.compile(r"%(?=25|[DFLW]$)")
# Directories without '.', a file with one and something else: nothing to escape.
_ORDINARY = re.compile(r"(?:[^./%]+/)*(?=[^/]*\.)(?=[^/]*[^./])[^/%]+", re.DOTALL)
_MAX_NAME_BYTES = 255
# Room for an escape of every '%' in a piece and for the suffix.
_PIECE_BYTES = 120


def key_path(key: str) -> str:
    """Return the relative path of the file that holds ``key``."""
    if _ORDINARY.fullmatch(key) and len(key.encode()) <= _MAX_NAME_BYTES:
        return key
    *parents, last = key.split("/")
    return "/".join([*(_directory(part) for part in parents), _file(last)])


def plain_path(key: str) -> str | None:
    """Return the path another tool would have chosen for ``key``; None when it is ``key_path``."""
    if _ORDINARY.fullmatch(key) and len(key.encode()) <= _MAX_NAME_BYTES:
        return None
    parts = key.split("/")
    if any(part in _SPECIAL or len(part.encode()) > _MAX_NAME_BYTES for part in parts):
        return None
    path = "/".join(_escaped(part) for part in parts)
    return None if path == key_path(key) else path


def directory_paths(part: str) -> tuple[str, ...]:
    """Return the names a directory for ``part`` may have, the store's own first."""
    own = _directory(part)
    plain = _escaped(part)
    return (own,) if own == plain or part in _SPECIAL or len(part.encode()) > _MAX_NAME_BYTES else (own, plain)


def directory_part(name: str) -> tuple[str, bool] | None:
    """Return (part of the key, whether it is complete) of a directory's name; None for the working area."""
    if name.endswith("%W"):
        return None
    if name.endswith("%L"):
        return _unescaped(name[:-2]), False
    return _unescaped(name.removesuffix("%D")), True


def file_part(name: str) -> str | None:
    """Return the last part of the key of a file's name; None for the store's own files."""
    return None if name.endswith("%W") else _unescaped(name.removesuffix("%F"))


def _directory(part: str) -> str:
    *pieces, last = _pieces(part)
    suffix = "%D" if "." in last or last == "" else ""
    return "/".join([*(piece + "%L" for piece in pieces), last + suffix])


def _file(part: str) -> str:
    *pieces, last = _pieces(part)
    suffix = "" if "." in last and last not in _SPECIAL else "%F"
    return "/".join([*(piece + "%L" for piece in pieces), last + suffix])


def _pieces(part: str) -> list[str]:
    escaped = _escaped(part)
    if len(escaped.encode()) <= _MAX_NAME_BYTES - 2:
        return [escaped]
    pieces: list[str] = []
    raw = part.encode()
    start = 0
    while start < len(raw):
        end = min(start + _PIECE_BYTES, len(raw))
        while end < len(raw) and raw[end] & 0xC0 == 0x80:  # not inside a character
            end -= 1
        pieces.append(_escaped(raw[start:end].decode()))
        start = end
    return pieces


def _escaped(part: str) -> str:
    return _AMBIGUOUS.sub("%25", part) if "%" in part else part


def _unescaped(name: str) -> str:
    return name.replace("%25", "%") if "%25" in name else name
