"""Calls that are wrong, sent to a running cluster: each is refused by its name, and nothing of it is written."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2

from brainy.api.common.v1 import common_pb2
from brainy.api.node.v1 import data_pb2, data_pb2_grpc, search_pb2, search_pb2_grpc
from brainy.errors import BrainyError, InvalidRequestError, NotFoundError
from brainy.rpc.errors import from_rpc_error
from brainy.rpc.options import MAX_MESSAGE_BYTES
from brainy.sdk.client import AsyncBrainy
from brainy.sdk.values import NewNoun
from tests.e2e.conftest import RunCluster, unexpected

pytestmark = pytest.mark.timeout(90)

GOOD = np.array([1, 2, 3, 4], dtype="<f4").tobytes()
LONGEST = "é" * 512  # 1,024 bytes
SURROGATE = "a\ud800b"


def floats(*values: float) -> bytes:
    return np.array(values, dtype="<f4").tobytes()


def noun(noun_id: str = "x", vector: bytes = GOOD, **documents: bytes) -> common_pb2.Noun:
    return common_pb2.Noun(id=noun_id, vector=vector, **documents)


#: What is wrong -> the noun, and the reason it is refused for.
BAD_NOUNS = {
    "three dimensions": (noun(vector=floats(1, 2, 3)), "INVALID_DIMENSION"),
    "five dimensions": (noun(vector=floats(1, 2, 3, 4, 5)), "INVALID_DIMENSION"),
    "half a component": (noun(vector=GOOD + b"\0\0"), "INVALID_DIMENSION"),
    "no vector": (noun(vector=b""), "INVALID_VECTOR"),
    "NaN": (noun(vector=floats(1, float("nan"), 3, 4)), "INVALID_VECTOR"),
    "infinity": (noun(vector=floats(1, 2, float("-inf"), 4)), "INVALID_VECTOR"),
    "zero under cosine": (noun(vector=floats(0, 0, 0, 0)), "INVALID_VECTOR"),
    "negative zero": (noun(vector=floats(-0.0, 0, -0.0, 0)), "INVALID_VECTOR"),
    "1,025 bytes of id": (noun(LONGEST + "a"), "INVALID_ID"),
    "empty id": (noun(""), "INVALID_ID"),
    "NUL in the id": (noun("a\0b"), "INVALID_ID"),
    "metadata not JSON": (noun(metadata=b"{'a': 1}"), "INVALID_METADATA"),
    "metadata cut off": (noun(metadata=b'{"a": '), "INVALID_METADATA"),
    "metadata with NaN": (noun(metadata=b'{"a": NaN}'), "INVALID_METADATA"),
    "metadata not UTF-8": (noun(metadata=b'"\xff\xfe"'), "INVALID_METADATA"),
    "metadata with a lone surrogate": (noun(metadata=rb'"\ud800"'), "INVALID_METADATA"),
    "empty metadata": (noun(metadata=b""), "INVALID_METADATA"),
    "deep metadata": (noun(metadata=b"[" * 5000 + b"]" * 5000), "INVALID_METADATA"),
    "metadata over 1 MiB": (noun(metadata=b'"' + b"x" * (1 << 20) + b'"'), "INVALID_METADATA"),
    "attributes no object": (noun(attributes=b"[1]"), "INVALID_METADATA"),
}

SENTENCES = {
    "INVALID_DIMENSION": "dimensions",
    "INVALID_VECTOR": "vector",
    "INVALID_ID": "1 to 1,024 bytes",
    "INVALID_METADATA": "cannot be stored",
}


async def refused(call: Awaitable[object], kind: type[BrainyError], reason: str) -> BrainyError:
    """The call is refused for the reason, says what to do, and left nothing in doubt."""
    with pytest.raises((BrainyError, grpc.RpcError)) as raised:
        await call
    error = raised.value if isinstance(raised.value, BrainyError) else from_rpc_error(raised.value)
    assert (type(error), error.reason) == (kind, reason), repr(error)
    assert error.message
    assert error.remedy
    assert error.data_safe
    return error


async def names(client: AsyncBrainy) -> set[str]:
    return {noun.id async for noun in client.scan(include_vectors=False, include_soft_deleted=True)}


async def test_every_wrong_call_is_refused_by_name_and_writes_nothing(tmp_path: Path, run_cluster: RunCluster) -> None:
    namespace = f"file://{tmp_path / 'bucket'}"
    async with run_cluster(namespace, nodes=2) as (cluster, client):
        await client.add([1, 2, 3, 4], {"n": 1}, id="first")
        # The longest id there may be.
        await client.add([4, 3, 2, 1], id=LONGEST)
        there = {"first", LONGEST}
        async with grpc.aio.insecure_channel(
            cluster.endpoints[0], options=[("grpc.max_send_message_length", -1)]
        ) as channel:
            stubs = data_pb2_grpc.NounServiceStub(channel), search_pb2_grpc.SearchServiceStub(channel)
            verbs = data_pb2_grpc.VerbServiceStub(channel)

            def upsert(*nouns: common_pb2.Noun, name: str = "", request_id: str = "") -> Awaitable[object]:
                return stubs[0].UpsertNouns(
                    data_pb2.UpsertNounsRequest(namespace=name, request_id=request_id, nouns=nouns)
                )

            await _upserts(upsert)
            assert await names(client) == there
            await _searches(stubs[1], client)
            await _namespaces(stubs[1], upsert)
            await _verbs(verbs)
            await _through_the_sdk(client)
            await _too_much(upsert, stubs[0], client)
        assert await names(client) == there
        assert {verb.id async for verb in client.scan_verbs()} == set()
        # And the cluster is as well as before.
        assert [hit.id for hit in await client.search([1, 2, 3, 4], 1)] == ["first"]
        assert all(process.alive() for process in cluster.processes)
        assert unexpected(cluster) == []


async def _upserts(upsert: Callable[..., Awaitable[object]]) -> None:
    for what, (bad, reason) in BAD_NOUNS.items():
        # One bad one among ninety-nine good ones: the call names it, and none of the others is written.
        crowd = [noun(f"good-{n}") for n in range(99)]
        crowd.insert(37, bad)
        error = await refused(upsert(*crowd), InvalidRequestError, reason)
        assert error.fields["index"] == "37", what
        assert SENTENCES[reason] in error.message, (what, error.message)


async def _searches(stub: search_pb2_grpc.SearchServiceAsyncStub, client: AsyncBrainy) -> None:
    def search(vectors: bytes = GOOD, dimensions: int = 4, k: int = 1, ids: tuple[str, ...] = ()) -> Awaitable[object]:
        return stub.Search(search_pb2.SearchRequest(vectors=vectors, dimensions=dimensions, k=k, ids=ids))

    for vectors, dimensions, reason in (
        (floats(1, 2, 3), 3, "INVALID_DIMENSION"),
        (floats(1, 2, 3, 4, 5), 4, "INVALID_DIMENSION"),
        (GOOD, 0, "INVALID_DIMENSION"),
        (floats(1, 2, 3, float("nan")), 4, "INVALID_VECTOR"),
        (floats(1, 2, 3, float("inf")), 4, "INVALID_VECTOR"),
        (floats(0, 0, 0, 0), 4, "INVALID_VECTOR"),
    ):
        await refused(search(vectors, dimensions), InvalidRequestError, reason)
    for k in (0, 10_001, 2**32 - 1):
        await refused(search(k=k), InvalidRequestError, "INVALID_K")
    await refused(search(GOOD * 101, k=10_000), InvalidRequestError, "BATCH_TOO_LARGE")
    # Both a vector and an id, or neither.
    await refused(search(ids=("first",)), InvalidRequestError, "INVALID_ARGUMENT")
    await refused(search(b"", 0), InvalidRequestError, "INVALID_ARGUMENT")
    error = await refused(search(b"", 0, ids=("first", "nobody")), NotFoundError, "NOT_FOUND")
    assert "nobody" in str(error)
    for bad in ("", "a\0b", LONGEST + "a"):
        await refused(search(b"", 0, ids=(bad,)), InvalidRequestError, "INVALID_ID")
    # Reading what does not exist is no error.
    assert await client.get_many(["nobody", "nothing"]) == {}
    assert await client.get("nobody") is None
    assert await client.get_verb("nobody") is None
    await client.delete("nobody")


async def _namespaces(search: search_pb2_grpc.SearchServiceAsyncStub, upsert: Callable[..., Awaitable[object]]) -> None:
    for name in ("s3://somebody-elses", "file:///nowhere"):
        error = await refused(upsert(noun(), name=name), NotFoundError, "UNKNOWN_NAMESPACE")
        assert error.fields["namespace"] == name
    for name in ("ftp://bucket", "s3://A_B", "file://relative", "::"):
        request = search_pb2.SearchRequest(namespace=name, vectors=GOOD, dimensions=4, k=1)
        await refused(search.Search(request), InvalidRequestError, "UNKNOWN_NAMESPACE")


async def _verbs(stub: data_pb2_grpc.VerbServiceAsyncStub) -> None:
    good = {"id": "v", "source_id": "first", "target_id": "x", "type": "relatedTo"}
    for change, reason in (
        ({"id": ""}, "INVALID_ID"),
        ({"source_id": ""}, "INVALID_ID"),
        ({"target_id": "a\0"}, "INVALID_ID"),
        ({"type": ""}, "INVALID_ARGUMENT"),
        ({"weight": float("nan")}, "INVALID_ARGUMENT"),
        ({"vector": floats(1, 2, 3)}, "INVALID_DIMENSION"),
        ({"vector": floats(1, 2, 3, float("nan"))}, "INVALID_VECTOR"),
        ({"metadata": b"{"}, "INVALID_METADATA"),
    ):
        whole = common_pb2.Verb(**good)  # type: ignore[arg-type]
        bad = common_pb2.Verb(**{**good, **change})  # type: ignore[arg-type]
        await refused(stub.UpsertVerbs(data_pb2.UpsertVerbsRequest(verbs=[whole, bad])), InvalidRequestError, reason)


async def _through_the_sdk(client: AsyncBrainy) -> None:
    nan, inf = float("nan"), float("inf")
    for vector in ([1, nan, 3, 4], [1, inf, 3, 4], [1, 2, 3, 1e300], [], [[1, 2], [3, 4]], ["a"], None):
        await refused(client.add(vector, id="x"), InvalidRequestError, "INVALID_VECTOR")
    await refused(client.add([0, 0, 0, 0], id="x"), InvalidRequestError, "INVALID_VECTOR")
    await refused(client.add([1, 2, 3], id="x"), InvalidRequestError, "INVALID_DIMENSION")
    await refused(client.search([1, 2, 3]), InvalidRequestError, "INVALID_DIMENSION")
    await refused(client.search([0, 0, 0, 0]), InvalidRequestError, "INVALID_VECTOR")
    await refused(client.search([1, nan, 3, 4]), InvalidRequestError, "INVALID_VECTOR")
    await refused(client.search(id="nobody"), NotFoundError, "NOT_FOUND")
    for k in (0, -1, 10_001):
        await refused(client.search([1, 2, 3, 4], k), InvalidRequestError, "INVALID_K")
    for bad in ("", "a\0b", LONGEST + "a", SURROGATE):
        for call in (
            client.add([1, 2, 3, 4], id=bad),
            client.add_many([[1, 2, 3, 4]] * 2, ids=["good", bad]),
            client.import_nouns([NewNoun(vector=[1, 2, 3, 4], id="good"), NewNoun(vector=[1, 2, 3, 4], id=bad)]),
            client.get(bad),
            client.delete(bad),
            client.search(id=bad),
            client.add_verb("first", bad, "relatedTo"),
            client.add_verb("first", "x", "relatedTo", id=bad),
            client.get_verb(bad),
            client.delete_verb(bad),
        ):
            await refused(call, InvalidRequestError, "INVALID_ID")
    for metadata in ({"at": object()}, {1: 2}, {"big": 2**65}, {"text": "\ud800"}, "x" * (1 << 20)):
        await refused(client.add([1, 2, 3, 4], metadata, id="x"), InvalidRequestError, "INVALID_METADATA")


async def _too_much(
    upsert: Callable[..., Awaitable[object]], stub: data_pb2_grpc.NounServiceAsyncStub, client: AsyncBrainy
) -> None:
    too_many = [noun(f"n{n}") for n in range(10_001)]
    error = await refused(upsert(*too_many), InvalidRequestError, "BATCH_TOO_LARGE")
    assert (error.fields["count"], error.fields["limit"]) == ("10001", "10000")
    fat = b'"' + b"x" * ((1 << 20) - 2) + b'"'
    near = [noun(f"n{n}", metadata=fat) for n in range((MAX_MESSAGE_BYTES >> 20) - 4)]
    await refused(upsert(*near), InvalidRequestError, "BATCH_TOO_LARGE")
    over = [noun(f"n{n}", metadata=fat) for n in range((MAX_MESSAGE_BYTES >> 20) + 1)]
    await refused(upsert(*over), InvalidRequestError, "BATCH_TOO_LARGE")
    many = data_pb2.GetNounsRequest(ids=[f"n{n}" for n in range(10_001)])
    await refused(stub.GetNouns(many), InvalidRequestError, "BATCH_TOO_LARGE")
    # Any gRPC client can read what is wrong, without ours.
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.UpsertNouns(data_pb2.UpsertNounsRequest(nouns=[noun("")]))
    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    metadata = dict(raised.value.trailing_metadata() or ())
    status = status_pb2.Status.FromString(bytes(metadata["grpc-status-details-bin"]))
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.domain, info.reason) == ("brainy", "INVALID_ID")
    assert info.metadata["remedy"]
    assert await client.get_many([f"n{n}" for n in range(0, 10_001, 500)]) == {}
