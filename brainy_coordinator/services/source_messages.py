"""Data that are elsewhere, on the wire, and the strategies that bring them."""

from __future__ import annotations

from brainy.api.coordinator.v1 import migration_pb2
from brainy.bucket.namespace import Namespace
from brainy.errors import InvalidRequestError
from brainy_coordinator.migration.record import SourceWish, Strategy

_Asking = migration_pb2.StartMigrationRequest | migration_pb2.PlanMigrationRequest


def source_value(request: _Asking) -> SourceWish | None:
    """Return where the data shall come from; None for the namespace itself.

    Raises:
        InvalidRequestError: neither or both of namespace and backup, or no name of a namespace.
    """
    if not request.HasField("source"):
        return None
    said = request.source
    if bool(said.namespace) == bool(said.backup):
        raise InvalidRequestError("a source is either a namespace or a backup", remedy="name exactly one of them")
    return SourceWish(
        namespace=str(Namespace.parse(said.namespace)) if said.namespace else "",
        backup=said.backup,
        without_vectors=said.without_vectors,
    )


def strategy_for(source: SourceWish) -> Strategy:
    """Return the one strategy that brings such data."""
    if source.without_vectors:
        return "sparse_import"
    return "backup_restore" if source.backup else "dedicated_namespace"


def check_strategy(strategy: Strategy, source: SourceWish | None) -> None:
    """Refuse a strategy that does not go with where the data come from.

    Raises:
        InvalidRequestError: they do not go together.
    """
    arriving = strategy in ("backup_restore", "sparse_import", "dedicated_namespace")
    if source is None and arriving:
        raise InvalidRequestError(
            "this strategy brings data from elsewhere", remedy="name a namespace or a backup (--from, --from-backup)"
        )
    if source is not None and strategy != strategy_for(source):
        raise InvalidRequestError(
            "this strategy does not bring such data",
            remedy=f"leave the strategy out, or choose {strategy_for(source).replace('_', '-')}",
            strategy=strategy,
        )


def source_message(source: SourceWish | None) -> migration_pb2.SourceSpec | None:
    """Return it as the protos carry it."""
    if source is None:
        return None
    return migration_pb2.SourceSpec(
        namespace=source.namespace, backup=source.backup, without_vectors=source.without_vectors
    )
