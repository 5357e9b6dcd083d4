"""Preflight checks that ask nodes about vectors and models: what a change of index or of embedding needs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from brainy.api.node.v1 import vectors_pb2
from brainy.bucket.embedding import EmbeddingIdentity
from brainy.bucket.follow import FollowChoice
from brainy.bucket.records import Routing, Spec
from brainy.errors import BrainyError
from brainy_coordinator.migration.observation import Check
from brainy_coordinator.migration.preflight.checks import asks_of_vectors, target_spec, vectors_fit
from brainy_coordinator.migration.record import Request
from brainy_coordinator.nodes import NodeCalls

#: Vectors are read from memory maps, and a model may have to be loaded.
_DESCRIBE_SECONDS = 20.0
_PROBE_SECONDS = 30.0
#: Nouns of each shard whose texts are looked for.
_SAMPLE = 500

#: What to do about a check that failed, by its name.
VECTOR_REMEDIES: Mapping[str, str] = {
    "reembedding_possible": "choose what it says, or migrate without another embedding model; nothing was changed",
    "embedding_answers": (
        "install the extra embed on the nodes, or name an endpoint that they reach (with a key: BRAINY_EMBEDDING__URL"
        " and BRAINY_EMBEDDING__API_KEY of the nodes)"
    ),
    "texts_present": "give the nouns a text (metadata.text), or accept nouns without a vector: --without-text",
}


class VectorChecks:
    """Asks the nodes of one namespace."""

    def __init__(self, nodes: NodeCalls, *, namespace: str) -> None:
        self._nodes = nodes
        self._namespace = namespace
        #: Texts a second that all nodes asked managed together when a model was last tried; 0 before.
        self.texts_per_second = 0.0

    async def fit(self, request: Request, source: Spec, routing: Routing, addresses: Mapping[str, str]) -> Check | None:
        """Say whether the vectors themselves can be held by the target; None where every vector can.

        Args:
            request: what is asked for; its target can be described.
            source: description of the generation in service.
            routing: the record in force.
            addresses: of the nodes that can be called.
        """
        if not asks_of_vectors(request, source):
            return None
        answers = await self._describe(request, routing, addresses, sample=0)
        if isinstance(answers, str):
            return Check(name="spec_holds_data", passed=False, detail=answers, reason="UNAVAILABLE")
        return vectors_fit(
            target_spec(source, request, created_at=""),
            zeros=sum(answer.zeros for answer in answers),
            largest=max((answer.largest for answer in answers), default=0.0),
        )

    async def reembedding(
        self,
        request: Request,
        source: Spec,
        routing: Routing,
        *,
        choice: FollowChoice,
        addresses: Mapping[str, str],
        holders: Mapping[str, str],
        without_text: int | None = None,
    ) -> tuple[Check, ...]:
        """Return what a change of the embedding model asks for besides; nothing where none is wished for.

        Args:
            request: what is asked for.
            source: description of the generation in service.
            routing: the record in force.
            choice: whether Brainy's tree is followed or written.
            addresses: of the nodes that can be called.
            holders: of those of them that may hold the target.
            without_text: nouns without a text among data from elsewhere; None if nobody counted them.
        """
        wished = request.target.embedding
        if wished is None:
            return ()
        possible = reembedding_possible(request, source, choice)
        if not possible.passed:
            return (possible,)
        endpoint = request.target.reembedding.endpoint if request.target.reembedding is not None else ""
        models = [(wished, endpoint)]
        if request.keep_way_back and source.embedding is not None:
            # On the way back the source embeds what was written since with the model it always had.
            models.append((source.embedding, source.reembedding.endpoint if source.reembedding is not None else ""))
        answers = await self._answers(models, holders)
        if request.source is not None:
            # What shall be embedded is not on the nodes. Where nobody counted it, the target is counted once filled.
            return possible, answers, *(() if without_text is None else (texts_present(request, without_text),))
        return possible, answers, await self._texts(request, routing, addresses)

    async def _answers(self, models: list[tuple[EmbeddingIdentity, str]], holders: Mapping[str, str]) -> Check:
        problems: list[str] = []
        rates: list[float] = []

        async def probe(node: str, address: str) -> None:
            for number, (identity, endpoint) in enumerate(models):
                try:
                    rate = await self._nodes.probe_embedding(address, identity, endpoint, timeout=_PROBE_SECONDS)
                except BrainyError as error:
                    problems.append(f"{node}: {identity.model}: {error.message}")
                    return
                if number == 0:
                    rates.append(rate)

        await asyncio.gather(*(probe(node, address) for node, address in sorted(holders.items())))
        self.texts_per_second = sum(rates)
        said = "; ".join(sorted(problems)) or ("" if holders else "no node can be asked")
        return Check(
            name="embedding_answers",
            passed=not said,
            detail=said or f"{models[0][0]}: {self.texts_per_second:,.0f} texts a second on {len(holders)} nodes",
            reason="EMBEDDING_FAILED",
        )

    async def _texts(self, request: Request, routing: Routing, addresses: Mapping[str, str]) -> Check:
        answers = await self._describe(request, routing, addresses, sample=_SAMPLE)
        if isinstance(answers, str):
            return Check(name="texts_present", passed=False, detail=answers, reason="UNAVAILABLE")
        sampled = sum(answer.sampled for answer in answers)
        return texts_present(request, sum(answer.without_text for answer in answers), sampled=sampled)

    async def _describe(
        self, request: Request, routing: Routing, addresses: Mapping[str, str], *, sample: int
    ) -> list[vectors_pb2.DescribeVectorsResponse] | str:
        """Ask the owner of each shard of the source; returns in words what kept one from answering."""
        placed = routing.generations.get(request.source_generation)
        owned: dict[str, list[int]] = {}
        for shard, where in (placed.shards if placed else {}).items():
            owned.setdefault(where.owner, []).append(shard)
        silent = sorted(owned.keys() - addresses.keys())
        if silent:
            return f"the owner of a shard, {silent[0]}, does not answer"
        try:
            return await asyncio.gather(
                *(
                    self._nodes.describe_vectors(
                        addresses[node],
                        vectors_pb2.DescribeVectorsRequest(
                            namespace=self._namespace,
                            generation=request.source_generation,
                            shards=shards,
                            sample=sample,
                        ),
                        timeout=_DESCRIBE_SECONDS,
                    )
                    for node, shards in owned.items()
                )
            )
        except BrainyError as error:
            return f"a node could not say what the vectors are: {error.message}"


def texts_present(request: Request, without: int, *, sampled: int | None = None) -> Check:
    """Whether no more nouns have no text than are accepted; ``sampled`` is None where all were looked at. Pure."""
    limit = request.target.reembedding.without_text_limit if request.target.reembedding is not None else 0
    looked = "nouns" if sampled is None else f"of {sampled} nouns looked at"
    return Check(
        name="texts_present",
        passed=without <= limit,
        detail=f"{without} {looked} have no text, {limit} accepted of all",
    )


def reembedding_possible(request: Request, source: Spec, choice: FollowChoice) -> Check:
    """Whether a change of the embedding model goes together with what else is wished for. Pure."""
    wished = request.target.embedding
    problem = ""
    if wished is not None and wished == source.embedding and request.source is None:
        problem = f"the texts are embedded with that model already ({wished})"
    elif request.strategy == "rolling":
        problem = (
            "rolling would read with one model and write with another: in-place upgrade, blue-green or coordinated"
        )
    elif choice.follow or choice.mirror:
        problem = "brainy's own tree is followed or mirrored to, and its vectors stay those of its own model"
    elif request.quality is not None or (request.rollback_if is not None and request.rollback_if.overlap is not None):
        problem = "two models find other neighbours, so neither search quality nor overlap can be held to a threshold"
    elif request.keep_way_back and source.embedding is None:
        problem = "nobody recorded what made the source's vectors, so that the way back could not be kept up to date"
    return Check(
        name="reembedding_possible",
        passed=not problem,
        detail=problem or f"from {source.embedding or 'vectors of an unrecorded model'} to {wished}",
    )
