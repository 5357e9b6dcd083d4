"""``brainy lock``: locks for any job."""

from __future__ import annotations

import getpass
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from brainy.cli.lock_run import run_under
from brainy.cli.output import JsonOption, current, facts, table
from brainy.cli.target import CoordinatorOption, DirectoryOption, NamespaceOption, connect, run
from brainy.sdk.lease import Lease
from brainy.sdk.locks import LockInfo

app = typer.Typer(help="Take, watch and break locks that the cluster keeps.", no_args_is_help=True)

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="1 to 256 of A-Z a-z 0-9 . _ - in parts joined by '/'.")
]
TtlOption = Annotated[float, typer.Option(help="Seconds after which the lock of a holder that died is free.")]
PurposeOption = Annotated[str, typer.Option(help="What for; others see it.")]
HolderOption = Annotated[str, typer.Option(help="Who; user, host and process if left out.")]
WaitOption = Annotated[
    float | None, typer.Option(min=0, help="Seconds to wait while another holds it; for ever if left out.")
]


@app.command("run")
def run_command(
    name: NameArgument,
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND...", help="What to run while the lock is held.")],
    ttl: TtlOption = 30.0,
    wait: WaitOption = None,
    grace: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds between SIGTERM and SIGKILL when the lock is lost; a tenth of --ttl."),
    ] = None,
    purpose: PurposeOption = "",
    holder: HolderOption = "",
    namespace: NamespaceOption = None,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
) -> None:
    """Run a command while holding a lock. It gets BRAINY_LOCK_NAME and BRAINY_LOCK_TOKEN.

    When the lock is lost the command is stopped: SIGTERM, then SIGKILL. Exit status: the
    command's; 128 + the signal that ended it; 75 if another held the lock all the time; 76 if the lock was lost.
    """
    output = current()

    async def work() -> int:
        async with connect(namespace, None, coordinator, directory) as brainy:
            lock = brainy.lock(
                name, ttl=ttl, wait=wait, holder=holder, purpose=purpose or " ".join(command)[:1024], watch=True
            )
            grace_seconds = ttl / 10 if grace is None else grace
            return await run_under(lock, command, describe=brainy.get_lock, output=output, grace_seconds=grace_seconds)

    raise typer.Exit(run(work()))


@app.command()
def acquire(
    name: NameArgument,
    ttl: TtlOption = 30.0,
    wait: WaitOption = 0.0,
    purpose: PurposeOption = "",
    holder: HolderOption = "",
    namespace: NamespaceOption = None,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Take a lock and leave it taken: nothing renews it. Exit status 75 if another holds it."""

    async def ask() -> Lease:
        async with connect(namespace, None, coordinator, directory) as brainy:
            return await brainy.lock(name, ttl=ttl, wait=wait, holder=holder, purpose=purpose).acquire()

    lease = run(ask())
    found = {
        "name": lease.name,
        "token": lease.token,
        "lease_id": lease.lease_id,
        "holder": lease.holder,
        "ttl_seconds": lease.ttl,
    }

    def human(console: Console) -> None:
        facts(console, found)
        console.print(f"give it back with: brainy lock release {name} --token {lease.token} --lease {lease.lease_id}")

    current().result(found, human)


@app.command()
def release(
    name: NameArgument,
    token: Annotated[int, typer.Option(min=1, help="As printed by brainy lock acquire.")],
    lease: Annotated[str, typer.Option(help="As printed by brainy lock acquire.")],
    namespace: NamespaceOption = None,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Give a lock back. Exit status 4 if the lease is no longer in force."""

    async def ask() -> LockInfo:
        async with connect(namespace, None, coordinator, directory) as brainy:
            return await brainy.release_lock(name, token=token, lease_id=lease)

    _report(run(ask()))


@app.command("list")
def list_all(
    prefix: Annotated[str, typer.Argument(metavar="[PREFIX]", help="Only locks whose name begins so.")] = "",
    namespace: NamespaceOption = None,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """List the locks that were ever held."""

    async def ask() -> list[LockInfo]:
        async with connect(namespace, None, coordinator, directory) as brainy:
            return await brainy.list_locks(prefix)

    found = run(ask())

    def human(console: Console) -> None:
        shown = table(None, "lock", "state", "token#", "ttl s#", "holder", "purpose")
        for lock in found:
            shown.add_row(
                escape(lock.name),
                lock.state,
                str(lock.token),
                f"{lock.ttl_seconds:g}",
                escape(lock.holder),
                escape(lock.purpose),
            )
        console.print(shown)

    current().result([asdict(lock) for lock in found], human)


@app.command()
def show(
    name: NameArgument,
    namespace: NamespaceOption = None,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """Print a lock: who holds it, or held it last. Exit status 3 if nobody ever did."""

    async def ask() -> LockInfo:
        async with connect(namespace, None, coordinator, directory) as brainy:
            return await brainy.get_lock(name)

    _report(run(ask()))


@app.command("break")
def break_(
    name: NameArgument,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why; kept in the lock's record and logged.")],
    token: Annotated[int, typer.Option(min=0, help="Only the lease with this token; 0 for the one in force.")] = 0,
    namespace: NamespaceOption = None,
    coordinator: CoordinatorOption = None,
    directory: DirectoryOption = None,
    json: JsonOption = False,
) -> None:
    """End another's lease at once. The token rises, so that what its holder still writes can be refused."""

    async def ask() -> tuple[LockInfo, bool]:
        async with connect(namespace, None, coordinator, directory) as brainy:
            by = f"{getpass.getuser()} by the brainy command"
            return await brainy.break_lock(name, reason=reason, by=by, token=token)

    lock, broken = run(ask())

    def human(console: Console) -> None:
        console.print("a lease was ended" if broken else "there was no such lease in force; nothing was changed")
        _show(console, lock)

    current().result({**asdict(lock), "broken": broken}, human)


def _report(lock: LockInfo) -> None:
    current().result(asdict(lock), lambda console: _show(console, lock))


def _show(console: Console, lock: LockInfo) -> None:
    facts(
        console,
        {
            "lock": lock.name,
            "state": lock.state,
            "token": lock.token,
            "holder" if lock.state == "held" else "last holder": lock.holder,
            "purpose": lock.purpose or "-",
            "ttl": f"{lock.ttl_seconds:g} s",
            "renewals": lock.renewals,
            "unchanged for": f"{lock.unchanged_seconds:.1f} s, as seen by the coordinator asked",
        },
    )
