"""Brainy Cluster: serve, coordinate and migrate Brainy vector + graph buckets.

What is in ``__all__`` is public; everything else may change. Names load on first use, so that importing the
package, as each of its processes does, costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from brainy.backup.values import BackupSummary, RestoreResult, Skipped, Verification
    from brainy.bucket.embedding import EmbeddingIdentity
    from brainy.embedding.base import Embedder
    from brainy.embedding.function import FunctionEmbedder
    from brainy.embedding.openai import OpenAIEmbedder
    from brainy.embedding.opening import open_embedder
    from brainy.errors import (
        AlreadyExistsError,
        BrainyError,
        ConflictError,
        CorruptDataError,
        EmbeddingError,
        EmbeddingMismatchError,
        FencedError,
        InvalidRequestError,
        LeaseHeldError,
        NotFoundError,
        OutcomeUnknownError,
        PastPointOfNoReturnError,
        PermissionDeniedError,
        PreconditionError,
        UnavailableError,
    )
    from brainy.sdk.auto import AutoOptions, S3Config, create_auto_brainy, create_auto_brainy_async
    from brainy.sdk.client import AsyncBrainy
    from brainy.sdk.lease import Lease
    from brainy.sdk.local_cluster import LocalCluster
    from brainy.sdk.locks import Lock, LockInfo
    from brainy.sdk.migration import (
        Migration,
        MigrationEvent,
        Strategy,
        TargetSpec,
    )
    from brainy.sdk.plans import MigrationPlan, PlanOutcome, PlanStep
    from brainy.sdk.quality import QualityCheck, QualityFound, QualityThresholds
    from brainy.sdk.quick import create_quick_brainy, create_quick_brainy_async
    from brainy.sdk.reembedding import Reembedding
    from brainy.sdk.sources import SourceSpec
    from brainy.sdk.sync import Brainy
    from brainy.sdk.sync_locks import BlockingLease, BlockingLock
    from brainy.sdk.values import (
        ImportResult,
        NamespaceInfo,
        NewNoun,
        NodeInfo,
        Noun,
        PerformanceMetrics,
        Quarantined,
        SearchResult,
        ServiceStatistics,
        ShardReplica,
        SkippedRow,
        Statistics,
        UnindexedNoun,
        Verb,
    )

__version__ = "0.1.0"

__all__ = [
    "AlreadyExistsError",
    "AsyncBrainy",
    "AutoOptions",
    "BackupSummary",
    "BlockingLease",
    "BlockingLock",
    "Brainy",
    "BrainyError",
    "ConflictError",
    "CorruptDataError",
    "Embedder",
    "EmbeddingError",
    "EmbeddingIdentity",
    "EmbeddingMismatchError",
    "FencedError",
    "FunctionEmbedder",
    "ImportResult",
    "InvalidRequestError",
    "Lease",
    "LeaseHeldError",
    "LocalCluster",
    "Lock",
    "LockInfo",
    "Migration",
    "MigrationEvent",
    "MigrationPlan",
    "NamespaceInfo",
    "NewNoun",
    "NodeInfo",
    "NotFoundError",
    "Noun",
    "OpenAIEmbedder",
    "OutcomeUnknownError",
    "PastPointOfNoReturnError",
    "PerformanceMetrics",
    "PermissionDeniedError",
    "PlanOutcome",
    "PlanStep",
    "PreconditionError",
    "QualityCheck",
    "QualityFound",
    "QualityThresholds",
    "Quarantined",
    "Reembedding",
    "RestoreResult",
    "S3Config",
    "SearchResult",
    "ServiceStatistics",
    "ShardReplica",
    "Skipped",
    "SkippedRow",
    "SourceSpec",
    "Statistics",
    "Strategy",
    "TargetSpec",
    "UnavailableError",
    "UnindexedNoun",
    "Verb",
    "Verification",
    "__version__",
    "create_auto_brainy",
    "create_auto_brainy_async",
    "create_quick_brainy",
    "create_quick_brainy_async",
    "open_embedder",
]

_MODULES = {
    "brainy.backup.values": ("BackupSummary", "RestoreResult", "Skipped", "Verification"),
    "brainy.bucket.embedding": ("EmbeddingIdentity",),
    "brainy.embedding.base": ("Embedder",),
    "brainy.embedding.function": ("FunctionEmbedder",),
    "brainy.embedding.openai": ("OpenAIEmbedder",),
    "brainy.embedding.opening": ("open_embedder",),
    "brainy.sdk.auto": ("AutoOptions", "S3Config", "create_auto_brainy", "create_auto_brainy_async"),
    "brainy.sdk.client": ("AsyncBrainy",),
    "brainy.sdk.lease": ("Lease",),
    "brainy.sdk.local_cluster": ("LocalCluster",),
    "brainy.sdk.locks": ("Lock", "LockInfo"),
    "brainy.sdk.migration": (
        "Migration",
        "MigrationEvent",
        "Strategy",
        "TargetSpec",
    ),
    "brainy.sdk.plans": ("MigrationPlan", "PlanOutcome", "PlanStep"),
    "brainy.sdk.quality": ("QualityCheck", "QualityFound", "QualityThresholds"),
    "brainy.sdk.quick": ("create_quick_brainy", "create_quick_brainy_async"),
    "brainy.sdk.reembedding": ("Reembedding",),
    "brainy.sdk.sources": ("SourceSpec",),
    "brainy.sdk.sync": ("Brainy",),
    "brainy.sdk.sync_locks": ("BlockingLease", "BlockingLock"),
}


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module 'brainy' has no attribute {name!r}")
        if name.endswith("Error"):
            module = "brainy.errors"
        else:
            module = next((module for module, names in _MODULES.items() if name in names), "brainy.sdk.values")
        value = globals()[name] = getattr(importlib.import_module(module), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
