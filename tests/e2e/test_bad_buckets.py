"""Places that are no namespace, through the ``brainy`` command: what is wrong, where, what to do; no traceback."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from brainy.bucket.namespace import Namespace
from brainy.cli.exits import Exit
from brainy.cli.main import app
from brainy.clock import SystemClock
from brainy.config.settings import StoreSettings
from brainy.errors import PreconditionError
from brainy.ids import Ids
from brainy.sdk.local_cluster import LocalCluster
from brainy.store.capability import probe_conditional_writes
from brainy.store.opening import open_store
from brainy.testing.servers import S3Server, free_ports
from tests.e2e.conftest import QUICK
from tests.e2e.unfit_store import unconditional

pytestmark = pytest.mark.timeout(120)


@dataclass(frozen=True, kw_only=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def error(self) -> dict[str, Any]:
        """The JSON object of ``--json``; standard output stays empty."""
        assert not self.out
        return dict(orjson.loads(self.err)["error"])


class Command:
    """``brainy`` as it is called, in this process: a start of its own takes a second."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache

    def __call__(self, *arguments: str, **variables: str) -> Answer:
        called = CliRunner().invoke(app, arguments, env={"XDG_CACHE_HOME": str(self._cache), **variables})
        assert called.exception is None or isinstance(called.exception, SystemExit), called.exception
        answer = Answer(code=called.exit_code, out=called.stdout, err=called.stderr)
        assert "Traceback" not in answer.out + answer.err, answer.err
        return answer

    def refused(self, code: Exit, reason: str, says: str, *arguments: str, **variables: str) -> None:
        """As a person sees it, and a program."""
        machine = self(*arguments, "--json", **variables)
        assert machine.code == code, (arguments, machine)
        error = machine.error
        assert error["reason"] == reason, error
        assert error["message"]
        assert error["remedy"]
        assert error["data_safe"]
        assert says in " ".join([error["message"], error["remedy"], *error["where"].values()]), error
        if code is Exit.UNAVAILABLE:
            return  # it waits for its time to be over; once is enough
        human = self(*arguments, **variables)
        assert (human.code, human.out) == (code, "")
        assert human.err.startswith("error: ")
        assert f"({reason})" in human.err
        assert "what to do: " in human.err
        assert says in human.err


@pytest.fixture
def brainy(tmp_path: Path) -> Command:
    return Command(tmp_path / "cache")


def files_below(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def test_what_is_no_bucket_of_brainys_is_named(tmp_path: Path, brainy: Command) -> None:
    empty, foreign, target = tmp_path / "empty", tmp_path / "foreign", tmp_path / "x.json"
    empty.mkdir()
    foreign.mkdir()
    (foreign / "photo.jpg").write_bytes(b"not ours")
    config = tmp_path / "brainy.toml"
    config.write_text("[node]\nfold_recrds = 3\n")
    broken = tmp_path / "broken.toml"
    broken.write_text("[node\n")
    nowhere, backup = f"file://{tmp_path}/nowhere", ("-o", str(target))
    (port,) = free_ports(1)
    vector = ("--vector", "1,2,3")

    # Once as a real process; what comes out is the same.
    process = subprocess.run(
        [sys.executable, "-m", "brainy.cli.main", "inspect", "--json", f"file://{foreign}"], capture_output=True
    )
    assert (process.returncode, process.stdout) == (Exit.PRECONDITION, b"")
    assert orjson.loads(process.stderr)["error"]["reason"] == "NOT_A_BRAINY_BUCKET"

    looked = brainy("inspect", f"file://{empty}")
    assert (looked.code, "nothing of Brainy's here" in looked.out) == (Exit.OK, True)
    brainy.refused(Exit.NOT_FOUND, "UNKNOWN_NAMESPACE", "no such directory", "inspect", nowhere)
    brainy.refused(Exit.NOT_FOUND, "UNKNOWN_NAMESPACE", "no such directory", "backup", nowhere, *backup)
    brainy.refused(Exit.NOT_FOUND, "UNKNOWN_NAMESPACE", "nothing is stored", "backup", f"file://{empty}", *backup)
    brainy.refused(Exit.PRECONDITION, "NOT_A_BRAINY_BUCKET", "none of Brainy's", "inspect", f"file://{foreign}")
    brainy.refused(Exit.PRECONDITION, "NOT_A_BRAINY_BUCKET", "none that", "backup", f"file://{foreign}", *backup)
    brainy.refused(Exit.NOT_FOUND, "NOT_FOUND", "brainy up", "search", nowhere, *vector)
    brainy.refused(Exit.UNAVAILABLE, "UNAVAILABLE", str(port), "search", "-e", f"127.0.0.1:{port}", *vector)
    brainy.refused(Exit.USAGE, "INVALID_ARGUMENT", "host:port", "search", "-e", "nonsense", *vector)
    brainy.refused(Exit.USAGE, "INVALID_VECTOR", "not a vector", "search", "-e", "h:1", "--vector", "1,x")
    for name in ("s3://A_B", "ftp://bucket/x", "file://relative"):
        brainy.refused(Exit.USAGE, "UNKNOWN_NAMESPACE", name, "inspect", name)
    brainy.refused(
        *(Exit.USAGE, "INVALID_ARGUMENT", "node.fold_recrds", "inspect", f"file://{empty}"),
        BRAINY_CONFIG=str(config),
    )
    brainy.refused(*(Exit.USAGE, "INVALID_ARGUMENT", "line 1", "inspect", f"file://{empty}"), BRAINY_CONFIG=str(broken))
    brainy.refused(
        *(Exit.USAGE, "INVALID_ARGUMENT", "store.max_retries", "inspect", f"file://{empty}"),
        BRAINY_STORE__MAX_RETRIES="many",
    )
    assert not target.exists()
    assert files_below(foreign) == {"photo.jpg"}
    assert files_below(empty) == set()


def test_up_on_a_foreign_directory_fails_at_once_and_says_why(tmp_path: Path, brainy: Command) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "photo.jpg").write_bytes(b"not ours")
    clock = SystemClock()
    began = clock.monotonic()
    answer = brainy("up", f"file://{foreign}", "--nodes", "1", "--json", **QUICK)
    assert clock.monotonic() - began < 30
    assert answer.code == Exit.PRECONDITION, answer
    assert (answer.error["reason"], answer.error["message"]) == (
        "NOT_A_BRAINY_BUCKET",
        "the namespace holds objects, but none of Brainy's",
    )
    # Only this product's own directory was added, without a spec or a routing record.
    # (and the directory store's own one).
    theirs = {path for path in files_below(foreign) if not path.startswith(("cluster/locks/", ".store%W/"))}
    assert theirs == {"photo.jpg"}
    status = brainy("status", f"file://{foreign}", "--json")
    assert (status.code, status.error["reason"]) == (Exit.NOT_FOUND, "NOT_FOUND")


def test_a_bucket_that_is_not_there_and_wrong_credentials(
    tmp_path: Path, brainy: Command, seaweedfs_server: S3Server
) -> None:
    right = seaweedfs_server.environment
    wrong = {**right, "AWS_SECRET_ACCESS_KEY": "somebody-elses"}
    stranger = {**right, "AWS_ACCESS_KEY_ID": "stranger"}
    seaweedfs_server.create_bucket("brainy-refuses")
    there, missing = "s3://brainy-refuses/app", "s3://brainy-is-not-there/app"
    backup = ("-o", str(tmp_path / "x.json"))
    brainy.refused(Exit.NOT_FOUND, "UNKNOWN_NAMESPACE", "brainy-is-not-there", "inspect", missing, **right)
    brainy.refused(Exit.NOT_FOUND, "UNKNOWN_NAMESPACE", "does not exist", "backup", missing, *backup, **right)
    brainy.refused(Exit.PERMISSION, "PERMISSION", "correct the credentials", "inspect", there, **wrong)
    brainy.refused(Exit.PERMISSION, "PERMISSION", "correct the credentials", "inspect", there, **stranger)
    brainy.refused(Exit.PERMISSION, "PERMISSION", "refuses", "backup", there, *backup, **wrong)
    assert not (tmp_path / "x.json").exists()
    # The processes of a cluster find the same; the one who starts them is told.
    for namespace, variables, reason, code in (
        (missing, right, "UNKNOWN_NAMESPACE", Exit.NOT_FOUND),
        (there, wrong, "PERMISSION", Exit.PERMISSION),
    ):
        answer = brainy("up", namespace, "--nodes", "1", "--json", **QUICK, **variables)
        assert (answer.code, answer.error["reason"]) == (code, reason), answer


async def test_a_store_without_conditional_writes_is_refused(
    tmp_path: Path, ministack_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in ministack_server.environment.items():
        monkeypatch.setenv(name, value)
    ministack_server.create_bucket("unfit")
    namespace = Namespace.parse("s3://unfit/app")
    async with unconditional(ministack_server.endpoint) as endpoint:
        ids = Ids()
        store = open_store(namespace, StoreSettings(endpoint=endpoint), clock=SystemClock(), ids=ids)
        with pytest.raises(PreconditionError) as raised:
            await probe_conditional_writes(store, ids)
        assert (raised.value.reason, raised.value.fields["check"]) == ("STORE_UNFIT", "create-if-absent")

        cluster = LocalCluster(
            str(namespace),
            nodes=1,
            directory=tmp_path / "cluster",
            settings={**QUICK, **ministack_server.environment, "BRAINY_STORE__ENDPOINT": endpoint},
        )
        with pytest.raises(PreconditionError) as raised:
            await cluster.start(timeout_seconds=60)
        assert raised.value.reason == "STORE_UNFIT"
        assert "create-if-absent" in raised.value.message
        assert cluster.processes == []
        left = [meta.key async for page in store.list("") for meta in page]
        assert [key for key in left if not key.startswith("cluster/locks/")] == []
        await store.close()
