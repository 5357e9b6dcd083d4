"""Listing of a directory store: the keys in the order of their bytes, one page at a time, blocking."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from brainy.store.base import ObjectMeta
from brainy.store.directory_files import etag_of
from brainy.store.filenames import directory_part, directory_paths, file_part

PAGE = 1000


class _Entry(NamedTuple):
    order: bytes
    part: str
    is_directory: bool
    #: Paths that all stand for the same part: the store's own and that of another tool.
    paths: list[str]


def walk_pages(root: str, prefix: str, start_after: str) -> Iterator[list[ObjectMeta]]:
    """Yield pages of objects whose key starts with ``prefix`` and is greater than ``start_after``."""
    bound = start_after.encode()
    page: list[ObjectMeta] = []
    for key, path in _walk([root], "", prefix, bound):
        try:
            status = os.stat(path)  # noqa: PTH116 - a string path, a million times
        except OSError:
            continue  # gone since its directory was read
        page.append(ObjectMeta(key=key, size=status.st_size, etag=etag_of(status), last_modified=status.st_mtime))
        if len(page) == PAGE:
            yield page
            page = []
    if page:
        yield page


def _walk(paths: list[str], above: str, prefix: str, bound: bytes) -> Iterator[tuple[str, str]]:
    wanted = prefix[len(above) :]
    part, separator, _ = wanted.partition("/")
    if separator:  # the prefix itself names the only directory that matters
        below = [f"{path}/{name}" for path in paths for name in directory_paths(part)]
        yield from _walk(below, f"{above}{part}/", prefix, bound)
        return
    for entry in _entries(paths, wanted):
        key = above + entry.part
        if not entry.is_directory:
            if key.encode() > bound:
                yield key, entry.paths[0]
            continue
        key += "/"
        start = key.encode()
        if start > bound or bound.startswith(start):
            yield from _walk(entry.paths, key, prefix, bound)


def _entries(paths: list[str], wanted: str) -> list[_Entry]:
    found: dict[bytes, _Entry] = {}
    for path in paths:
        _collect(path, "", wanted, found)
    return sorted(found.values())


def _collect(path: str, begun: str, wanted: str, found: dict[bytes, _Entry]) -> None:
    try:
        with os.scandir(path) as entries:
            listed = list(entries)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in listed:
        is_directory = entry.is_dir()
        if is_directory:
            decoded = directory_part(entry.name)
            if decoded is None:
                continue
            part, complete = begun + decoded[0], decoded[1]
            if not complete:
                _collect(entry.path, part, wanted, found)
                continue
        else:
            name = file_part(entry.name)
            if name is None:
                continue
            part = begun + name
        if not part.startswith(wanted):
            continue
        try:
            order = f"{part}/".encode() if is_directory else part.encode()
        except UnicodeEncodeError:
            continue  # a name that is not UTF-8 is nobody's key
        known = found.get(order)
        if known is None:
            found[order] = _Entry(order, part, is_directory, [entry.path])
        elif entry.name.endswith(("%D", "%F")):
            known.paths.insert(0, entry.path)
        else:
            known.paths.append(entry.path)
