"""What is to become of a generation that is not served any more: ``cluster/retired/<g>.json``.

No point in time is stored that anybody compares: ``remaining_seconds`` is what is left of the retention as leaders have
counted it, each on its own monotonic clock. It is written now and then, so a new leader counts a little twice.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from brainy.bucket.records import Record


class RetirementEvent(BaseModel):
    """One line of its story."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: Wall seconds of the leader, for people.
    at: float
    #: retained, kept, deleting or deleted.
    what: str
    by: str
    detail: str = ""


class Retirement(Record):
    """The record; only the leader writes it, with If-Match."""

    generation: int
    nonce: str
    #: Epoch of the leader that wrote it; never falls.
    leader_epoch: int
    #: retained: deleted once ``remaining_seconds`` is 0. kept: stays. deleting: there is no way back. deleted: gone.
    state: Literal["retained", "kept", "deleting", "deleted"]
    #: The migration that left it behind; "" for none that is known.
    migration: str = ""
    retain_seconds: float
    remaining_seconds: float
    #: What was there when the deletion began, of what is deleted.
    objects: int = 0
    bytes: int = 0
    story: tuple[RetirementEvent, ...] = ()
