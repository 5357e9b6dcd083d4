"""What happened, as JSON lines: the seed and settings first, then one event a line in the order of virtual time."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from brainy.testing.loop import SimLoop


class Trace:
    """Events of one simulation."""

    def __init__(self, loop: SimLoop, *, level: str, settings: Mapping[str, Any]) -> None:
        self._loop = loop
        self._open = True
        self._header = {"seed": loop.seed, "level": level, "settings": dict(settings)}
        self.events: list[tuple[float, str, dict[str, Any]]] = []

    def event(self, name: str, **fields: Any) -> None:
        """Add one."""
        if self._open:
            self.events.append((self._loop.time(), name, fields))

    def close(self) -> None:
        """Take no more: what follows is the clearing up."""
        self._open = False

    def lines(self) -> list[bytes]:
        """The trace as it is written to a file."""
        rows = [orjson.dumps(self._header)]
        rows += [orjson.dumps({"t": round(t, 6), "event": name, **fields}) for t, name, fields in self.events]
        return rows

    def digest(self) -> str:
        """SHA-256 of the lines: equal for equal seeds."""
        return hashlib.sha256(b"\n".join(self.lines())).hexdigest()

    def write(self, path: Path) -> None:
        """Write the file."""
        path.write_bytes(b"\n".join(self.lines()) + b"\n")
