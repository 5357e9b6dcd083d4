"""A small server that keeps the protos' promises in memory, on a real port: what the SDK is tested against.

``refuse`` makes the next calls of a method fail, ``lose_answers`` makes them act but lose the answer.
"""

from __future__ import annotations

import asyncio
import collections

import grpc
import numpy as np
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from brainy.api.common.v1 import common_pb2
from brainy.api.coordinator.v1 import (
    cluster_pb2,
    cluster_pb2_grpc,
    copy_rate_pb2,
    copy_rate_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
    membership_pb2,
    membership_pb2_grpc,
    migration_pb2,
    migration_pb2_grpc,
)
from brainy.api.node.v1 import data_pb2, data_pb2_grpc, search_pb2, search_pb2_grpc

Failure = tuple[grpc.StatusCode, str]


class FakeCluster(
    data_pb2_grpc.NounServiceServicer,
    data_pb2_grpc.VerbServiceServicer,
    data_pb2_grpc.StatisticsServiceServicer,
    search_pb2_grpc.SearchServiceServicer,
    cluster_pb2_grpc.ClusterServiceServicer,
    membership_pb2_grpc.MembershipServiceServicer,
    migration_pb2_grpc.MigrationServiceServicer,
    generation_pb2_grpc.GenerationServiceServicer,
    copy_rate_pb2_grpc.CopyServiceServicer,
):
    """State shared by any number of fake endpoints; ``serve`` opens one."""

    def __init__(self) -> None:
        self.nouns: dict[str, common_pb2.Noun] = {}
        self.verbs: dict[str, common_pb2.Verb] = {}
        self.generation = 0
        self.position = 0
        self.effects: dict[str, int] = {}  # request id -> position
        self.requests: list[tuple[str, object]] = []
        self.failures: dict[str, collections.deque[Failure]] = collections.defaultdict(collections.deque)
        self.lost: collections.Counter[str] = collections.Counter()
        self.hang: collections.Counter[str] = collections.Counter()
        self.break_stream_after: int | None = None
        self.outcome: migration_pb2.PlanOutcome | None = None
        self.plan = migration_pb2.MigrationPlan(
            id="p-1",
            target_generation=1,
            confirmations=[migration_pb2.PlanConfirmation(name="no-way-back", message="not kept up to date")],
            checks=[migration_pb2.PlanCheck(name="space", passed=True, tried=True)],
        )
        self.migration = migration_pb2.Migration(id="m-1", namespace="", strategy="STRATEGY_ROLLING")
        self.watch_states: list[int] = []
        self.obstacles: list[str] = []
        self.generations: list[generation_pb2.Generation] = []
        self.alive: list[str] = []
        #: Answered instead of figures of what is here.
        self.statistics: data_pb2.GetStatisticsResponse | None = None
        self.performance: data_pb2.GetPerformanceMetricsResponse | None = None
        self.servers: list[grpc.aio.Server] = []

    async def serve(self, port: int = 0) -> tuple[grpc.aio.Server, str]:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        data_pb2_grpc.add_NounServiceServicer_to_server(self, server)
        data_pb2_grpc.add_VerbServiceServicer_to_server(self, server)
        data_pb2_grpc.add_StatisticsServiceServicer_to_server(self, server)
        search_pb2_grpc.add_SearchServiceServicer_to_server(self, server)
        cluster_pb2_grpc.add_ClusterServiceServicer_to_server(self, server)
        membership_pb2_grpc.add_MembershipServiceServicer_to_server(self, server)
        migration_pb2_grpc.add_MigrationServiceServicer_to_server(self, server)
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(self, server)
        copy_rate_pb2_grpc.add_CopyServiceServicer_to_server(self, server)
        states = health.aio.HealthServicer()
        await states.set("", health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(states, server)
        bound = server.add_insecure_port(f"127.0.0.1:{port}")
        await server.start()
        self.servers.append(server)
        return server, f"127.0.0.1:{bound}"

    async def close(self) -> None:
        await asyncio.gather(*(server.stop(0) for server in self.servers))

    def refuse(self, method: str, code: grpc.StatusCode, reason: str = "", times: int = 1) -> None:
        self.failures[method].extend([(code, reason)] * times)

    def calls(self, method: str) -> list[object]:
        return [request for name, request in self.requests if name == method]

    async def _enter(self, method: str, request: object, context: grpc.aio.ServicerContext) -> None:
        self.requests.append((method, request))
        if self.hang[method]:
            self.hang[method] -= 1
            await asyncio.Event().wait()
        if self.failures[method]:
            await fail(context, *self.failures[method].popleft())

    async def _leave(self, method: str, context: grpc.aio.ServicerContext) -> None:
        if self.lost[method]:
            self.lost[method] -= 1
            await fail(context, grpc.StatusCode.UNAVAILABLE, "")

    def _header(self) -> common_pb2.ResponseHeader:
        return common_pb2.ResponseHeader(node_id="fake", generation=self.generation, routing_epoch=1)

    def _commit(self, request_id: str) -> tuple[bool, list[common_pb2.Position]]:
        fresh = request_id not in self.effects
        if fresh:
            self.position += 1
            self.effects[request_id] = self.position
        position = self.effects[request_id]
        return fresh, [common_pb2.Position(generation=self.generation, shard=0, position=position)]

    # --- nouns

    async def GetNouns(self, request, context):
        await self._enter("GetNouns", request, context)
        found = [self.nouns[noun_id] for noun_id in request.ids if noun_id in self.nouns]
        return data_pb2.GetNounsResponse(header=self._header(), nouns=found)

    async def ScanNouns(self, request, context):
        await self._enter("ScanNouns", request, context)
        for count, noun in enumerate(list(self.nouns.values())):
            if self.break_stream_after is not None and count == self.break_stream_after:
                self.break_stream_after = None
                await fail(context, grpc.StatusCode.UNAVAILABLE, "")
            yield data_pb2.ScanNounsResponse(nouns=[noun])

    async def UpsertNouns(self, request, context):
        await self._enter("UpsertNouns", request, context)
        fresh, positions = self._commit(request.request_id)
        if fresh:
            self.nouns.update((noun.id, noun) for noun in request.nouns)
        await self._leave("UpsertNouns", context)
        return data_pb2.UpsertNounsResponse(header=self._header(), positions=positions)

    async def DeleteNouns(self, request, context):
        await self._enter("DeleteNouns", request, context)
        fresh, positions = self._commit(request.request_id)
        if fresh:
            for noun_id in request.ids:
                self.nouns.pop(noun_id, None)
        return data_pb2.DeleteNounsResponse(header=self._header(), positions=positions)

    # --- verbs

    async def GetVerbs(self, request, context):
        await self._enter("GetVerbs", request, context)
        found = [self.verbs[verb_id] for verb_id in request.ids if verb_id in self.verbs]
        return data_pb2.GetVerbsResponse(header=self._header(), verbs=found)

    async def FindVerbs(self, request, context):
        await self._enter("FindVerbs", request, context)
        for verb in list(self.verbs.values()):
            if request.HasField("source_id") and verb.source_id != request.source_id:
                continue
            if request.HasField("target_id") and verb.target_id != request.target_id:
                continue
            if request.HasField("type") and verb.type != request.type:
                continue
            yield data_pb2.FindVerbsResponse(verbs=[verb])

    async def UpsertVerbs(self, request, context):
        await self._enter("UpsertVerbs", request, context)
        fresh, positions = self._commit(request.request_id)
        if fresh:
            self.verbs.update((verb.id, verb) for verb in request.verbs)
        return data_pb2.UpsertVerbsResponse(header=self._header(), positions=positions)

    async def DeleteVerbs(self, request, context):
        await self._enter("DeleteVerbs", request, context)
        fresh, positions = self._commit(request.request_id)
        if fresh:
            for verb_id in request.ids:
                self.verbs.pop(verb_id, None)
        return data_pb2.DeleteVerbsResponse(header=self._header(), positions=positions)

    # --- search and figures

    async def Search(self, request, context):
        await self._enter("Search", request, context)
        if request.ids:
            if any(noun_id not in self.nouns for noun_id in request.ids):
                await fail(context, grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
            body = b"".join(self.nouns[noun_id].vector for noun_id in request.ids)
            queries = np.frombuffer(body, "<f4").reshape(len(request.ids), -1)
        else:
            queries = np.frombuffer(request.vectors, "<f4").reshape(-1, request.dimensions)
        ids = list(self.nouns)
        rows = np.array([np.frombuffer(self.nouns[noun_id].vector, "<f4") for noun_id in ids])
        answer = search_pb2.SearchResponse(header=self._header())
        found = []
        for query in queries:
            norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(query)
            distances = (1 - rows @ query / norms).astype("<f4")
            best = np.argsort(distances, kind="stable")[: request.k]
            answer.counts.append(len(best))
            answer.ids.extend(ids[row] for row in best)
            found.append(distances[best])
            if request.include_metadata:
                answer.metadata.extend(self.nouns[ids[row]].metadata for row in best)
        answer.distances = np.concatenate(found).tobytes()
        return answer

    async def GetStatistics(self, request, context):
        await self._enter("GetStatistics", request, context)
        return self.statistics or data_pb2.GetStatisticsResponse(
            header=self._header(), noun_count=len(self.nouns), verb_count=len(self.verbs), dimensions=3
        )

    async def GetPerformanceMetrics(self, request, context):
        await self._enter("GetPerformanceMetrics", request, context)
        return self.performance or data_pb2.GetPerformanceMetricsResponse(
            header=self._header(), index_size=len(self.nouns), store_calls={"get": 7}
        )

    async def ListUnindexed(self, request, context):
        yield data_pb2.ListUnindexedResponse(items=[data_pb2.UnindexedItem(id="z", reason="zero")])

    async def ListQuarantine(self, request, context):
        item = data_pb2.QuarantinedObject(key="nouns/x.json", reason="not JSON", size=3)
        yield data_pb2.ListQuarantineResponse(objects=[item])

    # --- coordinator

    async def ListNamespaces(self, request, context):
        await self._enter("ListNamespaces", request, context)
        info = cluster_pb2.NamespaceInfo(namespace="file:///x", active_generation=1, phase="serving")
        return cluster_pb2.ListNamespacesResponse(leader_id="c", namespaces=[info])

    async def ListNodes(self, request, context):
        await self._enter("ListNodes", request, context)
        nodes = [
            membership_pb2.NodeInfo(node_id=f"n{number}", address=address, state=membership_pb2.NODE_STATE_ALIVE)
            for number, address in enumerate(self.alive)
        ]
        return membership_pb2.ListNodesResponse(leader_id="c", nodes=nodes)

    async def PlanMigration(self, request, context):
        await self._enter("PlanMigration", request, context)
        step = migration_pb2.PlanStep(action="fill", detail="4 shards")
        self.plan.strategy = request.strategy or migration_pb2.STRATEGY_ROLLING
        self.plan.ClearField("steps")
        self.plan.steps.append(step)
        return migration_pb2.PlanMigrationResponse(
            source_generation=0, target_generation=1, steps=[step], plan=self.plan
        )

    async def GetMigrationPlan(self, request, context):
        await self._enter("GetMigrationPlan", request, context)
        if request.id != self.plan.id:
            await fail(context, grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
        return migration_pb2.GetMigrationPlanResponse(plan=self.plan)

    async def StartMigration(self, request, context):
        await self._enter("StartMigration", request, context)
        self.migration.state = migration_pb2.MIGRATION_STATE_PENDING
        return migration_pb2.StartMigrationResponse(migration=self.migration)

    async def GetMigration(self, request, context):
        await self._enter("GetMigration", request, context)
        if request.id != self.migration.id:
            await fail(context, grpc.StatusCode.NOT_FOUND, "NOT_FOUND")
        return migration_pb2.GetMigrationResponse(migration=self.migration, outcome=self.outcome)

    async def ListMigrations(self, request, context):
        await self._enter("ListMigrations", request, context)
        if not request.page_token:
            return migration_pb2.ListMigrationsResponse(migrations=[self.migration], next_page_token="2")
        return migration_pb2.ListMigrationsResponse(migrations=[migration_pb2.Migration(id="m-2")])

    async def WatchMigration(self, request, context):
        await self._enter("WatchMigration", request, context)
        if self.watch_states:
            self.migration.state = self.watch_states.pop(0)
        yield migration_pb2.WatchMigrationResponse(migration=self.migration)
        if self.migration.state != migration_pb2.MIGRATION_STATE_SUCCEEDED:
            await fail(context, grpc.StatusCode.UNAVAILABLE, "")

    async def AbortMigration(self, request, context):
        await self._enter("AbortMigration", request, context)
        await fail(context, grpc.StatusCode.FAILED_PRECONDITION, "PAST_POINT_OF_NO_RETURN")

    def _turned(self, state: migration_pb2.MigrationState.ValueType, trigger: str) -> migration_pb2.Migration:
        self.migration.state = state
        self.migration.story.append(migration_pb2.MigrationEvent(trigger=trigger))
        return self.migration

    async def PromoteMigration(self, request, context):
        await self._enter("PromoteMigration", request, context)
        self.migration.held = False
        migration = self._turned(migration_pb2.MIGRATION_STATE_READY, "promote_requested")
        return migration_pb2.PromoteMigrationResponse(migration=migration)

    async def PauseMigration(self, request, context):
        await self._enter("PauseMigration", request, context)
        self.migration.paused.append(request.reason)
        return migration_pb2.PauseMigrationResponse(migration=self.migration)

    async def ResumeMigration(self, request, context):
        await self._enter("ResumeMigration", request, context)
        del self.migration.paused[:]
        return migration_pb2.ResumeMigrationResponse(migration=self.migration)

    async def SetCopyRate(self, request, context):
        await self._enter("SetCopyRate", request, context)
        rate = request.items_per_second if request.HasField("items_per_second") else None
        copy = self.migration.copy
        copy.ClearField("wanted")
        if rate is not None:
            copy.wanted = rate
        del copy.stages[:], copy.limits[:]
        copy.stages.add(stage="reading", done=2000, total=9000, per_second=500.0).remaining.FromSeconds(14)
        copy.stages.add(stage="indexing", done=10)
        copy.limits.add(
            node_id="n1", items_per_second=rate, reason="latency" if rate is None else "set", store_repeats=2
        )
        copy.resumed = 1500
        return copy_rate_pb2.SetCopyRateResponse(migration=self.migration)

    async def RollbackMigration(self, request, context):
        await self._enter("RollbackMigration", request, context)
        migration = self._turned(migration_pb2.MIGRATION_STATE_OBSERVING, "rollback_requested")
        return migration_pb2.RollbackMigrationResponse(migration=migration)

    async def CompleteMigration(self, request, context):
        await self._enter("CompleteMigration", request, context)
        if not request.validate_only:
            self._turned(migration_pb2.MIGRATION_STATE_COMPLETING, "complete_requested")
        answer = migration_pb2.CompleteMigrationResponse(migration=self.migration, retired=["cluster/generations/0/"])
        answer.deletes.add(kind="nouns", objects=3, bytes=3 << 20)
        if request.HasField("retain"):
            answer.retain.CopyFrom(request.retain)
        return answer

    async def PostponeMigration(self, request, context):
        await self._enter("PostponeMigration", request, context)
        self.migration.postponed.remaining.CopyFrom(request.duration)
        self.migration.postponed.reason = request.reason
        return migration_pb2.PostponeMigrationResponse(migration=self.migration)

    async def CanSwitchMigration(self, request, context):
        await self._enter("CanSwitchMigration", request, context)
        return migration_pb2.CanSwitchMigrationResponse(
            can_switch=not self.obstacles,
            obstacles=[migration_pb2.SwitchObstacle(reason=why, remedy="wait") for why in self.obstacles],
            migration=self.migration,
        )

    async def ListMigrationPlans(self, request, context):
        await self._enter("ListMigrationPlans", request, context)
        rolling = migration_pb2.STRATEGY_ROLLING
        return migration_pb2.ListMigrationPlansResponse(
            plans=[
                migration_pb2.MigrationPlanSummary(id="p-3", strategy=rolling),
                migration_pb2.MigrationPlanSummary(id="p-2", strategy=rolling, outdated=["age", "items"]),
                migration_pb2.MigrationPlanSummary(
                    id="p-1",
                    strategy=rolling,
                    migration_id="m-1",
                    migration_state=migration_pb2.MIGRATION_STATE_SUCCEEDED,
                ),
            ]
        )

    async def ListGenerations(self, request, context):
        await self._enter("ListGenerations", request, context)
        return generation_pb2.ListGenerationsResponse(generations=self.generations)

    async def SetRetention(self, request, context):
        await self._enter("SetRetention", request, context)
        state = generation_pb2.GENERATION_STATE_KEPT if request.keep else generation_pb2.GENERATION_STATE_RETAINED
        found = generation_pb2.Generation(number=request.generation, state=state)
        if not request.keep:
            found.remaining.CopyFrom(request.retain)
        return generation_pb2.SetRetentionResponse(generation=found)


async def fail(context: grpc.aio.ServicerContext, code: grpc.StatusCode, reason: str) -> None:
    """Abort a call, with an ErrorInfo as a server of ours sends it if there is a reason."""
    metadata = ()
    if reason:
        info = any_pb2.Any()
        info.Pack(error_details_pb2.ErrorInfo(reason=reason, domain="brainy", metadata={"remedy": "do this"}))
        status = status_pb2.Status(code=code.value[0], message="refused", details=[info])
        metadata = (("grpc-status-details-bin", status.SerializeToString()),)
    await context.abort(code, "refused", trailing_metadata=metadata)
