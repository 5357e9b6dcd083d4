"""What a comparison has done so far, so that a killed one goes on.

``FILE`` holds the points at which both sides are read, which parts of them were, which buckets were looked at and what
was found; beside it, ``FILE.d`` holds the rows. The file is replaced as a whole, after the rows it speaks of were
written: what it says is always true. Both are gone after a comparison that came to its end.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

from pydantic import Field

from brainy.bucket.records import Record
from brainy.errors import PreconditionError
from brainy.verify.values import Difference, Findings, What


class PartDone(Record):
    """A part of a side that was read through."""

    nouns: int
    verbs: int
    quarantined: int
    #: Runs of rows, and of ends of verbs.
    runs: int
    end_runs: int


class SideState(Record):
    """How far a side was read."""

    #: ``Side.save``.
    point: str
    parts: dict[int, PartDone] = Field(default_factory=dict)


class State(Record):
    """``FILE``."""

    kind: str = "brainy-verify"
    #: What was asked for; another question is another run.
    question: str
    sample_of: int = 0
    sample_part: int = 0
    a: SideState
    b: SideState
    #: The unequal buckets below this one were looked at.
    next_bucket: int = 0
    findings: dict[str, Any] = Field(default_factory=dict)


class StateFile:
    """The file and the directory beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows = path.with_name(path.name + ".d")

    def load(self, question: str) -> State | None:
        """Return what was saved, None where nothing was.

        Raises:
            PreconditionError: it belongs to another comparison.
            CorruptDataError: it was altered.
        """
        if not self.path.is_file() or not self.rows.is_dir():
            self.begin()
            return None
        state = State.decode(self.path.read_bytes(), key=str(self.path))
        if state.kind != "brainy-verify" or state.question != question:
            raise PreconditionError(
                "the state file belongs to another comparison",
                remedy="name another file, or delete this one to begin anew",
                file=self.path,
                asked=question,
                found=state.question,
            )
        return state

    def begin(self) -> None:
        """Clear the directory."""
        shutil.rmtree(self.rows, ignore_errors=True)
        self.rows.mkdir(parents=True)

    def save(self, state: State) -> None:
        """Replace the file."""
        fresh = self.path.with_name(self.path.name + ".new")
        fresh.write_bytes(state.encode())
        fresh.replace(self.path)

    def remove(self) -> None:
        """Remove both."""
        self.path.unlink(missing_ok=True)
        shutil.rmtree(self.rows, ignore_errors=True)


def encode_findings(findings: Findings) -> dict[str, Any]:
    """Return findings as JSON values."""
    return dataclasses.asdict(findings)


def decode_findings(values: dict[str, Any]) -> Findings:
    """Read what ``encode_findings`` returned, after a way through JSON."""
    known = dict(values)
    known["differences"] = [
        Difference(**{**each, "what": What(each["what"]), "fields": tuple(each["fields"])})
        for each in known.get("differences", ())
    ]
    known["unsettled_items"] = [(kind, item_id) for kind, item_id in known.get("unsettled_items", ())]
    return Findings(**known)
