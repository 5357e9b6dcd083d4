"""Preflight checks one by one."""

from __future__ import annotations

import json

import pytest

from brainy.bucket.embedding import EmbeddingIdentity, Reembedding
from brainy.bucket.follow import FollowChoice
from brainy.bucket.records import GenerationPlacement, NodeAddress, Routing, ShardPlacement, Spec
from brainy.errors import PermissionDeniedError, PreconditionError
from brainy.ids import Ids
from brainy.legacy.writers import signs_of_writers
from brainy.store.base import PutOutcome
from brainy.store.memory import MemoryStore
from brainy_coordinator.membership.registry import Report
from brainy_coordinator.migration.observation import Check
from brainy_coordinator.migration.preflight.checks import (
    asks_of_vectors,
    disk_needed,
    no_foreign_writers,
    space,
    spec_holds_data,
    target_differs,
    target_spec,
    vectors_fit,
    versions,
)
from brainy_coordinator.migration.preflight.preflight import REMEDIES, require
from brainy_coordinator.migration.preflight.probes import BackupChecks, permissions, untried
from brainy_coordinator.migration.preflight.vectors import reembedding_possible
from brainy_coordinator.migration.record import Request, SourceWish, TargetWish

SPEC = Spec(generation=3, dimensions=8, shard_count=4, source="2")
NOW = 1_700_000_000.0


def request(target: int = 4, **wish: object) -> Request:
    return Request(
        request_id="r",
        namespace="memory://x-y-z",
        strategy="rolling",
        source_generation=3,
        target_generation=target,
        target=TargetWish.model_validate(wish),
    )


def routing(*generations: int, migration: str | None = None) -> Routing:
    shards = {0: ShardPlacement(owner="a", epoch=1)}
    return Routing(
        namespace="memory://x-y-z",
        epoch=7,
        nonce="n",
        leader_epoch=1,
        active=3,
        write=3,
        migration=migration,
        nodes={"a": NodeAddress(address="a", incarnation="i")},
        generations={n: GenerationPlacement(state="serving", shard_count=1, shards=shards) for n in generations},
    )


def report(node: str, *, protocol: int = 1, free: int | None = None) -> Report:
    return Report(
        node_id=node, incarnation="i", address=node, version="1.0", protocol_version=protocol, disk_free_bytes=free
    )


def test_source_and_target_differ() -> None:
    assert target_differs(request(), routing(3)).passed
    assert not target_differs(request(3), routing(3)).passed
    assert not target_differs(request(), routing(3, 4)).passed
    # The migration's own target, when a later leader checks again.
    assert target_differs(request(), routing(3, 4, migration="m-1")).passed
    moved = request().model_copy(update={"source_generation": 2})
    assert "generation 2 is not in service" in target_differs(moved, routing(3)).detail


@pytest.mark.parametrize(
    ("wish", "problem"),
    [
        ({}, ""),
        ({"shard_count": 4096, "scalar_kind": "i8"}, ""),
        ({"metric": "l2sq", "scalar_kind": "f16"}, ""),
        ({"metric": "manhattan"}, "metric"),
        ({"scalar_kind": "f8"}, "scalar_kind"),
        ({"shard_count": 4097}, "4097 shards"),
        ({"connectivity": 1}, "connectivity is 1"),
        ({"metric": "l2sq", "scalar_kind": "i8"}, "i8 holds directions only"),
        ({"expansion_add": 200, "expansion_search": 4096}, ""),
        ({"expansion_search": 4097}, "expansions"),
        ({"partitioning": "hash"}, ""),
        ({"partitioning": "range"}, "partitioning"),
        ({"dimensions": 8}, ""),
        ({"dimensions": 16}, "16 dimensions, and the vectors have 8"),
        ({"embedding": {"model": "m", "dimensions": 16}}, ""),
        ({"embedding": {"model": "m", "dimensions": 16}, "dimensions": 16}, ""),
        ({"embedding": {"model": "m", "dimensions": 16}, "dimensions": 8}, "the model's vectors have 16"),
    ],
)
def test_what_is_wished_for_holds_the_data(wish: dict[str, object], problem: str) -> None:
    found = spec_holds_data(request(**wish), SPEC)
    assert found.passed is not bool(problem)
    assert problem in found.detail


def test_directions_of_an_i8_index_do_not_become_lengths() -> None:
    small = SPEC.model_copy(update={"scalar_kind": "i8"})
    assert spec_holds_data(request(), small).passed
    assert not spec_holds_data(request(metric="l2sq"), small).passed
    assert spec_holds_data(request(metric="l2sq", scalar_kind="f32"), small).passed


@pytest.mark.parametrize(
    ("before", "wish", "zeros", "largest", "problem"),
    [
        ({"metric": "l2sq"}, {"metric": "cos"}, 0, 1.0, ""),
        ({"metric": "l2sq"}, {"metric": "cos"}, 3, 1.0, "3 vectors are all zeros"),
        ({"metric": "l2sq"}, {"metric": "ip"}, 3, 1.0, None),
        ({}, {"scalar_kind": "f16"}, 0, 65_504.0, ""),
        ({}, {"scalar_kind": "f16"}, 0, 65_505.0, "65505, and f16 holds up to 65,504"),
        ({"scalar_kind": "f16"}, {}, 0, 1e9, None),
        ({}, {"scalar_kind": "bf16"}, 0, 1e9, None),
        # Its vectors are all made anew.
        ({"metric": "l2sq"}, {"metric": "cos", "embedding": {"model": "m", "dimensions": 16}}, 3, 1e9, None),
    ],
)
def test_vectors_fit_what_is_wished_for(
    before: dict[str, object], wish: dict[str, object], zeros: int, largest: float, problem: str | None
) -> None:
    source = SPEC.model_copy(update=before)
    assert asks_of_vectors(request(**wish), source) is (problem is not None)
    if problem is not None:
        target = target_spec(source, request(**wish), created_at="")
        found = vectors_fit(target, zeros=zeros, largest=largest)
        assert found.passed is not bool(problem)
        assert problem in found.detail


def test_the_target_says_what_made_its_vectors() -> None:
    model = EmbeddingIdentity(model="m", dimensions=16)
    wish = {"embedding": model, "reembedding": Reembedding(endpoint="http://m", without_text_limit=5)}
    target = target_spec(SPEC, request(**wish), created_at="")
    assert (target.dimensions, target.embedding, target.reembedding) == (16, model, wish["reembedding"])
    # What follows from it is made as any other, and remembers the model.
    later = target_spec(target, request(5), created_at="")
    assert (later.dimensions, later.embedding, later.reembedding) == (16, model, None)
    plain = target_spec(SPEC, request(), created_at="")
    assert b"embedding" not in plain.encode()
    assert "embedding" not in TargetWish().model_dump_json()


@pytest.mark.parametrize(
    ("change", "choice", "problem"),
    [
        ({}, FollowChoice(), ""),
        ({"strategy": "rolling"}, FollowChoice(), "rolling"),
        ({}, FollowChoice(follow=True), "followed"),
        ({"keep_way_back": True}, FollowChoice(), ""),
    ],
)
def test_what_goes_together_with_another_model(change: dict[str, object], choice: FollowChoice, problem: str) -> None:
    source = SPEC.model_copy(update={"embedding": EmbeddingIdentity(model="old", dimensions=8)})
    wished = request(embedding={"model": "m", "dimensions": 16}).model_copy(
        update={"strategy": "in_place_upgrade", **change}
    )
    found = reembedding_possible(wished, source, choice)
    assert found.passed is not bool(problem)
    assert problem in found.detail
    same = reembedding_possible(wished, source.model_copy(update={"embedding": wished.target.embedding}), choice)
    assert not same.passed
    # Where the texts come from elsewhere, nothing here was embedded yet: the recorded model is as good as any.
    elsewhere = wished.model_copy(update={"source": SourceWish(backup="/b", without_vectors=True)})
    recorded = source.model_copy(update={"embedding": wished.target.embedding})
    assert reembedding_possible(elsewhere, recorded, choice).passed is not bool(problem)
    unknown = reembedding_possible(wished, SPEC, choice)
    assert unknown.passed is not (bool(problem) or wished.keep_way_back)


def test_nodes_speak_one_protocol() -> None:
    assert versions({}).passed
    assert versions({"a": report("a"), "b": report("b")}).passed
    found = versions({"a": report("a"), "b": report("b", protocol=2), "c": report("c", protocol=0)})
    assert not found.passed
    assert found.detail == "different protocols: unknown: c 1.0; 1: a 1.0; 2: b 1.0"


def test_nodes_have_room() -> None:
    needed = disk_needed(100_000, 1_000, target_spec(SPEC, request(), created_at=""))
    assert 100_000 * 8 * 4 < needed < 200_000_000
    roomy = {node: report(node, free=needed) for node in "abc"}
    assert space(roomy, needed=needed, replication=2).passed
    # Two copies on three nodes: two thirds each.
    tight = roomy | {"b": report("b", free=needed * 2 // 3 - 1)}
    found = space(tight, needed=needed, replication=2)
    assert not found.passed
    assert "b has" in found.detail
    assert space(tight, needed=needed, replication=1).passed
    # More copies than nodes are as many as nodes.
    assert space({"a": report("a", free=needed)}, needed=needed, replication=2).passed
    assert space({"a": report("a")}, needed=needed, replication=2).passed


def test_no_writer_beside_the_cluster() -> None:
    assert no_foreign_writers(()).passed
    found = no_foreign_writers(("a lock", "an entry"))
    assert (found.passed, found.detail) == (False, "a lock; an entry")


async def test_signs_of_writers() -> None:
    store = MemoryStore()
    await store.put(f"change-log/{int((NOW - 400) * 1000)}-abc.json", b"{}")
    await store.put(f"change-log/{int((NOW + 7200) * 1000)}-abc.json", b"{}")
    await store.put("locks/old", b"x", user_metadata={"expires-at": str(int((NOW - 1) * 1000))})
    await store.put("locks/odd", b"x", user_metadata={"expires-at": "soon"})
    assert await signs_of_writers(store, NOW) == ()
    await store.put(f"change-log/{int((NOW - 200) * 1000)}-abc.json", b"{}")
    await store.put("locks/statistics-flush", b"x", user_metadata={"expires-at": str(int((NOW + 9) * 1000))})
    entries, locks = await signs_of_writers(store, NOW)
    assert entries.startswith("1 entry")
    assert locks == "locks of Brainy's that are not over: locks/statistics-flush"
    # What the cluster mirrors looks like a writer, so that only locks tell.
    assert await signs_of_writers(store, NOW, mirrored=True) == (locks,)


class Refusing(MemoryStore):
    """A store that refuses some calls."""

    def __init__(self, *refused: str) -> None:
        super().__init__()
        self._refused = refused

    def _ask(self, what: str) -> None:
        if what in self._refused:
            raise PermissionDeniedError("access denied")

    async def put_if_absent(self, key: str, body: bytes) -> PutOutcome:
        self._ask("put")
        return await super().put_if_absent(key, body)

    async def delete(self, key: str) -> None:
        self._ask("delete")
        await super().delete(key)


@pytest.mark.parametrize("refused", ["put", "delete"])
async def test_permissions(refused: str) -> None:
    store = MemoryStore()
    assert (await permissions(store, Ids())).passed
    assert not store._objects
    found = await permissions(Refusing(refused), Ids())
    assert not found.passed
    assert found.detail == (
        f"cannot {'create' if refused == 'put' else 'delete'} an object under cluster/: access denied"
    )
    with pytest.raises(PreconditionError) as raised:
        require((found,))
    assert (raised.value.reason, raised.value.remedy) == ("PERMISSION", REMEDIES["permissions"])


async def test_a_backup_must_be_whole(tmp_path) -> None:
    checks = BackupChecks()
    assert (await checks.check("")).passed
    assert "No such file" in (await checks.check(str(tmp_path / "none"))).detail
    torn = tmp_path / "torn.json"
    torn.write_text(json.dumps({"nouns": []})[:-1])
    assert not (await checks.check(str(torn))).passed
    assert not (await checks.check(str(tmp_path))).passed
    whole = tmp_path / "whole.json"
    whole.write_text(json.dumps({"nouns": [], "verbs": [], "nounTypes": [], "verbTypes": [], "version": "1.0.0"}))
    found = await checks.check(str(whole))
    assert found.passed, found.detail
    assert found == await checks.check(str(whole))


def test_every_check_that_can_fail_has_a_remedy_and_untried_ones_pass() -> None:
    assert untried("permissions") == Check(
        name="permissions", passed=True, detail="not tried: a dry run writes nothing", tried=False
    )
    for name in (
        "permissions",
        "space",
        "versions",
        "spec_holds_data",
        "no_foreign_writers",
        "target_differs",
        "backup_present",
    ):
        with pytest.raises(PreconditionError, match=name) as raised:
            require((Check(name=name, passed=False, detail="x"),))
        assert raised.value.remedy
