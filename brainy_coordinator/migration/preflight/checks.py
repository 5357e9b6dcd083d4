"""Preflight checks that judge by values alone. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from brainy.bucket.embedding import Reembedding
from brainy.bucket.records import Routing, Spec
from brainy.legacy.inventory import Inventory
from brainy.legacy.outlay import Assumptions, predict
from brainy.legacy.tally import Tally
from brainy_coordinator.membership.registry import Report
from brainy_coordinator.migration.observation import Check
from brainy_coordinator.migration.record import Request

MOST_SHARDS = 4096
_MOST_CONNECTIVITY = 512
_MOST_EXPANSION = 4096
#: The largest number of half precision.
LARGEST_F16 = 65_504.0
#: Bytes of documents that are assumed of an item where nobody has counted them.
_DOCUMENT_BYTES = 512


def target_spec(source: Spec, request: Request, *, created_at: str) -> Spec:
    """Return the description of a migration's target: the source's, with what was wished for.

    Raises:
        ValidationError: there is no such metric or scalar kind.
    """
    wish = request.target
    embedding = wish.embedding or source.embedding
    return Spec.model_validate(
        {
            **source.model_dump(exclude={"source_trees", "reembedding"}),
            "dimensions": (wish.embedding.dimensions if wish.embedding else 0) or source.dimensions,
            "embedding": embedding.model_dump() if embedding else None,
            "reembedding": (wish.reembedding or Reembedding()).model_dump() if wish.embedding else None,
            "expansion_add": wish.expansion_add or source.expansion_add,
            "expansion_search": wish.expansion_search or source.expansion_search,
            "partitioning": wish.partitioning or source.partitioning,
            "generation": request.target_generation,
            "metric": wish.metric or source.metric,
            "scalar_kind": wish.scalar_kind or source.scalar_kind,
            "connectivity": wish.connectivity or source.connectivity,
            "shard_count": wish.shard_count or source.shard_count,
            "source": str(request.source_generation),
            "created_at": created_at,
        }
    )


def target_differs(request: Request, routing: Routing) -> Check:
    """Whether the target is a generation of its own, which is not placed yet."""
    source, target = request.source_generation, request.target_generation
    problem = ""
    if target == source:
        problem = f"generation {target} is the source and the target"
    elif target in routing.generations and routing.migration is None:
        problem = f"generation {target} is in service already"
    elif source != routing.active:
        problem = f"generation {source} is not in service, {routing.active} is"
    return Check(
        name="target_differs",
        passed=not problem,
        detail=problem or f"generation {source} becomes {target}",
    )


def spec_holds_data(request: Request, source: Spec) -> Check:
    """Whether what is wished for can hold what there is."""
    problem, wish = "", request.target
    try:
        target = target_spec(source, request, created_at="")
    except ValidationError as error:
        first = error.errors()[0]
        problem = f"{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}"
    else:
        if not 1 <= target.shard_count <= MOST_SHARDS:
            problem = f"{target.shard_count} shards, and there may be 1 to {MOST_SHARDS}"
        elif not 2 <= target.connectivity <= _MOST_CONNECTIVITY:
            problem = f"connectivity is {target.connectivity}, and may be 2 to {_MOST_CONNECTIVITY}"
        elif wish.dimensions and wish.embedding is None and wish.dimensions != source.dimensions:
            problem = (
                f"{wish.dimensions} dimensions, and the vectors have {source.dimensions}: only another model's differ"
            )
        elif wish.dimensions and wish.embedding is not None and wish.dimensions != wish.embedding.dimensions:
            problem = f"{wish.dimensions} dimensions, and the model's vectors have {wish.embedding.dimensions}"
        elif not all(1 <= each <= _MOST_EXPANSION for each in (target.expansion_add, target.expansion_search)):
            problem = (
                f"expansions {target.expansion_add} and {target.expansion_search}: they may be 1 to {_MOST_EXPANSION}"
            )
        elif (
            target.scalar_kind == "i8"
            and target.metric != "cos"
            and (source.scalar_kind, source.metric) != (target.scalar_kind, target.metric)
        ):
            problem = f"i8 holds directions only, and {target.metric} needs lengths"
    return Check(
        name="spec_holds_data",
        passed=not problem,
        detail=problem
        or f"{wish.embedding.dimensions if wish.embedding else source.dimensions} dimensions, as wished for",
    )


def asks_of_vectors(request: Request, source: Spec) -> bool:
    """Whether the vectors themselves have to be looked at: they are kept, and the index is to hold them otherwise."""
    target = target_spec(source, request, created_at="")
    if request.target.embedding is not None:
        return False
    smaller = target.scalar_kind == "f16" and source.scalar_kind != "f16"
    return smaller or (target.metric == "cos" and source.metric != "cos")


def vectors_fit(target: Spec, *, zeros: int, largest: float) -> Check:
    """Whether the index of the target can hold the vectors that the source's holds.

    Args:
        target: the target's description.
        zeros: searchable vectors of the source that are all zeros.
        largest: the largest absolute value of a component.
    """
    problem = ""
    if target.metric == "cos" and zeros:
        problem = f"{zeros} vectors are all zeros, which have no direction under cos and would not be found any more"
    elif target.scalar_kind == "f16" and largest > LARGEST_F16:
        problem = f"a component of {largest:g}, and f16 holds up to {LARGEST_F16:,.0f}"
    return Check(
        name="spec_holds_data", passed=not problem, detail=problem or f"{target.dimensions} dimensions, as wished for"
    )


def versions(reports: Mapping[str, Report]) -> Check:
    """Whether all nodes speak the same wire protocol."""
    spoken: dict[int, list[str]] = {}
    for node, report in sorted(reports.items()):
        spoken.setdefault(report.protocol_version, []).append(f"{node} {report.version}".strip())
    several = "; ".join(f"{number or 'unknown'}: {', '.join(nodes)}" for number, nodes in sorted(spoken.items()))
    return Check(
        name="versions",
        passed=len(spoken) <= 1,
        detail=f"different protocols: {several}" if len(spoken) > 1 else "all nodes speak the same protocol",
    )


def disk_needed(nouns: int, verbs: int, target: Spec) -> int:
    """Bytes of local disk that one copy of the target takes, all shards together; about."""
    tally = Tally(
        nouns=nouns,
        verbs=verbs,
        dimensions=Counter({target.dimensions: nouns}),
        vector_bytes=4 * target.dimensions * nouns,
        document_bytes=_DOCUMENT_BYTES * (nouns + verbs),
    )
    return predict(Inventory(), tally, None, Assumptions(shards=target.shard_count)).disk_bytes


def space(reports: Mapping[str, Report], *, needed: int, replication: int) -> Check:
    """Whether every node that says how much is free has room for its share of the target."""
    copies = min(max(1, replication), max(1, len(reports)))
    share = needed * copies // max(1, len(reports))
    short = [
        f"{node} has {report.disk_free_bytes:,}"
        for node, report in sorted(reports.items())
        if report.disk_free_bytes is not None and report.disk_free_bytes < share
    ]
    return Check(
        name="space",
        passed=not short,
        detail=f"a node needs about {share:,} bytes of disk" + (f"; {', '.join(short)}" if short else ""),
    )


def no_foreign_writers(signs: Sequence[str]) -> Check:
    """Whether nobody writes past the cluster what the target would not get.

    ``signs`` is what speaks for a Brainy that writes; empty where the tree is not read from, or is followed.
    """
    return Check(
        name="no_foreign_writers",
        passed=not signs,
        detail="; ".join(signs) or "no sign of a writer beside the cluster",
    )
