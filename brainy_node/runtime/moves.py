"""What a front door refuses because its namespace has gone elsewhere, or is only just coming from there."""

from __future__ import annotations

from brainy.bucket.records import Routing
from brainy.errors import PreconditionError, UnavailableError
from brainy_node.runtime.ports import NamespaceRuntime, Runtimes


def refuse_arriving(routing: Routing) -> None:
    """Refuse a write to a namespace whose first data arrive.

    Raises:
        PreconditionError: NAMESPACE_ARRIVING.
    """
    origin = routing.arriving
    if origin is not None:
        raise PreconditionError(
            "the namespace takes no writes before its first data are in",
            reason="NAMESPACE_ARRIVING",
            remedy=(
                f"write to {origin.namespace} until it has moved"
                if origin.is_followed
                else f"wait until the migration has ended (brainy migrate watch {routing.migration})"
            ),
            source=origin.name,
            migration=routing.migration,
        )


def refuse_moved(routing: Routing) -> None:
    """Refuse whatever is asked of a namespace that has moved.

    Raises:
        PreconditionError: NAMESPACE_MOVED; ``moved_to`` and the remedy name the new one.
    """
    moving = routing.moving
    if moving is not None and moving.done:
        raise PreconditionError(
            "the namespace has moved",
            reason="NAMESPACE_MOVED",
            remedy=f"use {moving.to}",
            moved_to=moving.to,
            migration=moving.migration,
        )


class OpenNamespaces:
    """``Runtimes`` for the front door: those that have moved are refused."""

    def __init__(self, runtimes: Runtimes) -> None:
        self._runtimes = runtimes

    def get(self, name: str) -> NamespaceRuntime:
        """Return a namespace that is to be asked here.

        Raises:
            NotFoundError: UNKNOWN_NAMESPACE.
            PreconditionError: NAMESPACE_MOVED.
        """
        runtime = self._runtimes.get(name)
        try:
            routing = runtime.routing
        except UnavailableError:
            return runtime
        refuse_moved(routing)
        return runtime
