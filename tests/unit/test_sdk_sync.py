"""The blocking client."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
import threading

import pytest
from sdk_cluster_fake import FakeCluster

from brainy import AsyncBrainy, Brainy, InvalidRequestError
from brainy.sdk.loop_thread import LOOP


@pytest.fixture
def cluster():
    fake = FakeCluster()
    _, fake.address = LOOP.run(fake.serve())
    yield fake
    LOOP.run(fake.close())


@pytest.fixture
def brainy(cluster):
    with Brainy(AsyncBrainy([cluster.address], coordinators=[cluster.address])) as client:
        yield client


def test_every_call_of_the_asynchronous_client_is_there():
    calls = {name for name in dir(AsyncBrainy) if not name.startswith("_")}
    assert calls - set(dir(Brainy)) == set()


def test_add_search_scan(brainy):
    brainy.add([1.0, 0.0], {"n": 1}, id="a")
    brainy.add_many([[0.0, 1.0]] * 300, ids=[f"b{n}" for n in range(300)])
    assert [hit.id for hit in brainy.search([1.0, 0.1], 1)] == ["a"]
    assert len({noun.id for noun in brainy.scan()}) == 301


def test_errors_arrive_as_they_are(brainy):
    with pytest.raises(InvalidRequestError):
        brainy.add([float("nan")])


def test_half_read_scan_can_be_given_up(brainy):
    brainy.add_many([[0.0, 1.0]] * 600)
    for _ in brainy.scan():
        break
    assert brainy.get_statistics().noun_count == 600


def test_several_threads_share_a_client(brainy):
    threads = [threading.Thread(target=brainy.add, args=([1.0],)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert brainy.get_statistics().noun_count == 8


def test_documentation_and_signature_are_the_asynchronous_ones():
    client = Brainy(AsyncBrainy(["127.0.0.1:1"]))
    assert Brainy.add.__doc__ == AsyncBrainy.add.__doc__
    assert list(inspect.signature(client.add).parameters)[1:] == ["vector", "metadata", "id"]
    client.close()
    client.close()


def test_blocking_inside_the_loop_is_refused_instead_of_hanging(brainy):
    async def inside():
        return brainy.get("a")

    with pytest.raises(InvalidRequestError, match="AsyncBrainy"):
        asyncio.run_coroutine_threadsafe(inside(), LOOP._running()).result(timeout=5)


def test_interpreter_exits_cleanly_with_an_open_client(cluster):
    program = (
        "import warnings; warnings.simplefilter('error')\n"
        "from brainy import AsyncBrainy, Brainy\n"
        f"client = Brainy(AsyncBrainy(['{cluster.address}']))\n"
        "client.add([1.0], id='from-child')\n"
        "scan = client.scan(); next(scan)\n"
        "print('done')\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert ended.stdout == "done\n"
    assert ended.stderr == ""
    assert ended.returncode == 0
