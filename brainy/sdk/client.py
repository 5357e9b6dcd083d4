"""The asynchronous client."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from brainy.sdk.backups import BackupCalls
from brainy.sdk.figures import FigureCalls
from brainy.sdk.gates import GateCalls
from brainy.sdk.generations import GenerationCalls
from brainy.sdk.imports import ImportCalls
from brainy.sdk.locks import LockCalls
from brainy.sdk.plan_calls import PlanCalls
from brainy.sdk.quality import QualityCalls
from brainy.sdk.searches import SearchCalls
from brainy.sdk.stored import StoredCalls
from brainy.sdk.traffic import TrafficCalls
from brainy.sdk.turns import TurnCalls


class AsyncBrainy(
    ImportCalls,
    StoredCalls,
    SearchCalls,
    FigureCalls,
    TurnCalls,
    PlanCalls,
    GateCalls,
    GenerationCalls,
    TrafficCalls,
    QualityCalls,
    LockCalls,
    BackupCalls,
):
    """A client of a cluster, for asyncio.

    Every call that changes something carries a request id and is retried with the *same* id, on any
    endpoint, until its deadline: it has one effect however often it is sent. Reads see at least the writes this
    client was acknowledged (session tokens). Errors are those of ``brainy.errors``.

    Usage::

        async with AsyncBrainy(["127.0.0.1:7171"]) as brainy:
            await brainy.add([0.1, 0.2, 0.3], {"title": "first"}, id="a")
            hits = await brainy.search([0.1, 0.2, 0.3], 10)

    Use one object in one event loop. The transport is plain gRPC; across hosts, let a service mesh encrypt it.
    """

    async def __aenter__(self) -> Self:
        """Return itself; the first call connects."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        await self.close()
