"""Which share of reads is tried on the target of a migration: the ``reads`` of the routing record."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ReadTrial(BaseModel):
    """Reads that go to a generation that does not answer reads otherwise."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: The generation they are tried on.
    generation: int
    #: Share of reads that it answers, 0 to 1.
    weight: float = Field(default=0.0, ge=0.0, le=1.0)
    #: Share of reads that are asked of it besides, after the client has its answer, 0 to 1.
    shadow: float = Field(default=0.0, ge=0.0, le=1.0)
    #: Goes up when what was compared so far is to be forgotten.
    round: int = Field(default=1, ge=1)
