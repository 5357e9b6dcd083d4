"""What the S3 store makes of every kind of answer, from a server that says what it is told to."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainy.errors import BrainyError, InvalidRequestError, PermissionDeniedError, UnavailableError
from brainy.store.base import PutState
from brainy.store.s3 import _UNADDRESSABLE, S3Store, _all_addressable
from brainy.store.s3_access import S3Access
from brainy.store.s3_listing import read_listing


class Puppet:
    """Answers every request with ``status`` and ``code``, drops the connection at 0, says nothing at -1."""

    def __init__(self) -> None:
        self.status = 200
        self.code = ""
        self.requests: Counter[str] = Counter()
        self.headers: list[str] = []
        self.arrived: asyncio.Queue[str] = asyncio.Queue()
        self._open: dict[asyncio.Task[None] | None, asyncio.StreamWriter] = {}

    async def close(self) -> None:
        for writer in self._open.values():
            writer.close()
        tasks = [task for task in self._open if task is not None]
        if tasks:
            await asyncio.wait(tasks)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open[asyncio.current_task()] = writer
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                text = head.decode()
                self.requests[text.partition(" ")[0]] += 1
                self.headers.append(text)
                self.arrived.put_nowait(text)
                if "expect: 100-continue" in text.lower():
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                for line in text.lower().split("\r\n"):
                    if line.startswith("content-length:"):
                        await reader.readexactly(int(line.partition(":")[2]))
                if self.status == 0:
                    break
                if self.status == -1:
                    await reader.read()
                    break
                body = f"<Error><Code>{self.code}</Code></Error>".encode() if self.status >= 300 else b""
                writer.write(
                    f'HTTP/1.1 {self.status} X\r\nETag: "e"\r\nContent-Length: {len(body)}\r\n\r\n'.encode() + body
                )
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def puppet(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Puppet, S3Store]]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    puppet = Puppet()
    server = await asyncio.start_server(puppet.handle, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    store = S3Store("bucket", S3Access(endpoint=f"http://127.0.0.1:{port}", timeout_seconds=0.5))
    yield puppet, store
    await store.close()
    server.close()
    await puppet.close()


OUTCOMES = [
    (200, "", PutState.WON),
    (412, "PreconditionFailed", PutState.LOST),
    (404, "NoSuchKey", PutState.LOST),
    (409, "ConditionalRequestConflict", PutState.UNKNOWN),
    (500, "InternalError", PutState.UNKNOWN),
    (503, "SlowDown", PutState.UNKNOWN),
    (0, "connection dropped", PutState.UNKNOWN),
    (-1, "no answer in time", PutState.UNKNOWN),
]


@pytest.mark.parametrize(("status", "code", "state"), OUTCOMES)
@pytest.mark.parametrize("key", ["plain.json", "through//boto3.json"])
async def test_outcomes_of_conditional_writes(
    puppet: tuple[Puppet, S3Store], status: int, code: str, state: PutState, key: str
) -> None:
    server, store = puppet
    server.status, server.code = status, code
    assert (await store.put_if_match(key, b"body", '"e"')).state is state
    if status != 404:  # a create does not meet a missing object
        assert (await store.put_if_absent(key, b"body")).state is state
    # Never repeated behind our back, or a landed write would look lost.
    assert server.requests["PUT"] == (1 if status == 404 else 2)
    assert any('if-match: "e"' in text.lower() for text in server.headers)


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (403, "AccessDenied", PermissionDeniedError),
        (401, "", PermissionDeniedError),
        (400, "ExpiredToken", PermissionDeniedError),
        (400, "InvalidRequest", InvalidRequestError),
        (503, "SlowDown", UnavailableError),
        (429, "TooManyRequests", UnavailableError),
        (0, "", UnavailableError),
        (-1, "", UnavailableError),
    ],
)
async def test_errors_of_other_calls(
    puppet: tuple[Puppet, S3Store], status: int, code: str, error: type[BrainyError]
) -> None:
    server, store = puppet
    server.status, server.code = status, code
    with pytest.raises(error) as caught:
        await store.get("a.json")
    assert "secret" not in repr(caught.value.fields)
    with pytest.raises(error):
        await store.put("a.json", b"")
    with pytest.raises(error):
        await store.delete("a.json")
    with pytest.raises(error):
        await store.get("through//boto3.json")
    with pytest.raises(error):
        async for _ in store.list(""):
            pass
    found = await store.get_many(["a.json", "b.json"])
    assert [type(item) for item in found] == [error, error]
    assert server.requests["GET"] == 5


async def test_refused_conditional_writes_raise(puppet: tuple[Puppet, S3Store]) -> None:
    server, store = puppet
    server.status, server.code = 403, "AccessDenied"
    with pytest.raises(PermissionDeniedError):
        await store.put_if_absent("a.json", b"")
    with pytest.raises(PermissionDeniedError):
        await store.put_if_match("a.json", b"", '"e"')


async def test_an_unreadable_listing_is_an_error(puppet: tuple[Puppet, S3Store]) -> None:
    server, store = puppet
    server.status = 200  # and an empty body
    with pytest.raises(UnavailableError, match="listing"):
        async for _ in store.list(""):
            pass


async def test_get_many_stops_when_cancelled(puppet: tuple[Puppet, S3Store]) -> None:
    server, store = puppet
    server.status = -1
    task = asyncio.create_task(store.get_many([f"{n}.json" for n in range(1000)], concurrency=4))
    for _ in range(4):
        await server.arrived.get()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await store.close()
    assert server.requests["GET"] <= 8


def test_a_page_of_a_listing() -> None:
    page = read_listing(
        b'<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        b"<IsTruncated>true</IsTruncated><NextContinuationToken>a+b</NextContinuationToken>"
        b"<EncodingType>url</EncodingType><Contents><Key>a+b%2Bc%0A.json</Key><Size>7</Size>"
        b"<LastModified>2026-11-22T09:44:59.081Z</LastModified><ETag>&quot;e&quot;</ETag></Contents>"
        b"</ListBucketResult>"
    )
    assert page.next_token == "a+b"
    (item,) = page.objects
    assert (item.key, item.size, item.etag) == ("a b+c\n.json", 7, '"e"')
    assert item.last_modified == pytest.approx(1795340699.081)
    plain = read_listing(
        b"<ListBucketResult><IsTruncated>false</IsTruncated><Contents><Key>a+b%20</Key><Size>0</Size>"
        b"<LastModified>2026-11-22T09:44:59Z</LastModified></Contents></ListBucketResult>"
    )
    assert (plain.next_token, plain.objects[0].key) == ("", "a+b%20")


HEAD = '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name>'
PLAIN = "<Contents><Key>a</Key><ETag>&#34;e&#34;</ETag><Size>1</Size><LastModified>2026-11-22T09:44:59Z</LastModified>"


@pytest.mark.parametrize(
    "contents",
    [
        # The usual form, which is scanned.
        f"{PLAIN}</Contents>{PLAIN}<Owner><ID>x</ID></Owner></Contents>",
        f"{PLAIN.replace('<Key>a', '<Key>a&amp;b&#38;&lt;c')}</Contents>",
        PLAIN.replace("<Key>a", "<Key>ä\nb ") + "</Contents>",
        # Forms for the real parser.
        PLAIN + "</Contents>\n" + PLAIN + "</Contents>",
        f"{PLAIN}</Contents><!-- <Contents> -->{PLAIN}</Contents>",
        f"{PLAIN.replace('<Key>a', '<Key><![CDATA[<Key>x</Key>]]>')}</Contents>",
        f"{PLAIN}</Contents>{PLAIN.replace('<ETag>&#34;e&#34;</ETag>', '')}</Contents>",
        f"{PLAIN}</Contents><CommonPrefixes><Prefix>p</Prefix></CommonPrefixes>{PLAIN}</Contents>",
        f"{PLAIN.replace('<Key>a', '<Key />').replace('</Key>', '', 1)}</Contents>",
        "",
    ],
)
def test_a_page_says_the_same_whether_scanned_or_parsed(contents: str) -> None:
    body = f"{HEAD}<IsTruncated>false</IsTruncated>{contents}</ListBucketResult>".encode()
    namespace = "{http://s3.amazonaws.com/doc/2006-03-01/}"
    expected = [
        (part.findtext(f"{namespace}Key"), part.findtext(f"{namespace}ETag") or "")
        for part in ElementTree.fromstring(body).iter(f"{namespace}Contents")
    ]
    assert [(item.key, item.etag) for item in read_listing(body).objects] == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<Error><Code>InternalError</Code></Error>",
        f"{HEAD}{PLAIN}</Contents>".encode(),
        f"{HEAD}{PLAIN.replace('<Size>1', '<Size>')}</Contents></ListBucketResult>".encode(),
        f"{HEAD}{PLAIN}</Contents></ListBucketResult".encode(),
    ],
)
def test_what_is_no_page_is_refused(body: bytes) -> None:
    with pytest.raises((ElementTree.ParseError, ValueError, KeyError)):
        read_listing(body)


@given(st.lists(st.text(st.sampled_from("ab./\n\x07é"), min_size=1, max_size=8), min_size=1, max_size=4))
def test_keys_seen_at_a_glance_are_those_that_pass_one_by_one(keys: list[str]) -> None:
    if _all_addressable(keys):
        assert not any(_UNADDRESSABLE.search(key) or key.startswith("/") for key in keys)
    elif "".join(keys).isascii():
        assert any(_UNADDRESSABLE.search(key) for key in keys)


async def test_a_store_closed_meanwhile_leaves_no_reader_waiting(puppet: tuple[Puppet, S3Store]) -> None:
    server, store = puppet
    server.status = -1
    reading = asyncio.create_task(store.get_many([f"a{number}" for number in range(200)]))
    waiting = asyncio.create_task(store.get_many([f"b{number}" for number in range(200)]))
    await server.arrived.get()
    await store.close()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(waiting, 5)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert reading.cancelled()
