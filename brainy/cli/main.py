"""The ``brainy`` command."""

from __future__ import annotations

import asyncio
from typing import Any

import typer
from typer.core import TyperGroup

from brainy.cli import (
    advice,
    backups,
    clusters,
    follow,
    gates,
    generations,
    imports,
    inspection,
    items,
    locks,
    migrations,
    mirrors,
    probe,
    quarantine,
    rescue,
    traffic,
    verifying,
    versions,
)
from brainy.cli.demo import command as demo
from brainy.cli.exits import Exit, exit_of, table
from brainy.cli.output import begin, current
from brainy.config.environment import debugging
from brainy.errors import BrainyError
from brainy.telemetry.logs import configure_library_logs


class _Reporting(TyperGroup):
    """Turns errors into a message and an exit status."""

    def invoke(self, ctx: Any) -> Any:
        # Any: typer carries its own copy of click in some versions and imports it in others.
        begin()
        # Standard output is for results alone.
        configure_library_logs(debug=debugging())
        try:
            return super().invoke(ctx)
        except BrainyError as error:
            current().error(error)
            raise typer.Exit(int(exit_of(error))) from error
        except (KeyboardInterrupt, asyncio.CancelledError):
            raise typer.Exit(int(Exit.INTERRUPTED)) from None
        except Exception as error:
            # Typer's and click's own exceptions say how the command ends; everything else is a fault of ours.
            if type(error).__module__.partition(".")[0] in ("click", "typer") or debugging():
                raise
            current().error(
                BrainyError(
                    "a fault of this program",
                    remedy="run it again with BRAINY_DEBUG=1 and report what it prints",
                    cause=f"{type(error).__name__}: {error}",
                )
            )
            raise typer.Exit(int(Exit.INTERNAL)) from error


app = typer.Typer(
    name="brainy",
    cls=_Reporting,
    help="Serve, inspect and migrate Brainy vector + graph buckets.",
    epilog=table(),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="rich",
)
app.command("up")(clusters.up)
app.command("down")(clusters.down)
app.command("status")(clusters.status)
app.command("add-nodes")(clusters.add_nodes)
app.command("drain")(clusters.drain)
app.command("generations")(generations.generations)
app.command("inspect")(inspection.inspect)
app.command("advise")(advice.advise)
app.command("backup")(backups.backup)
app.command("restore")(backups.restore)
app.command("verify-backup")(backups.verify_backup)
app.command("verify")(verifying.verify)
app.command("follow")(follow.follow)
app.command("mirror")(mirrors.mirror)
app.command("import")(imports.import_file)
app.command("search")(items.search)
app.command("get")(items.get)
gates.add_to(migrations.app)
migrations.app.command("reads")(traffic.reads)
migrations.app.command("compare")(traffic.compare)
app.add_typer(migrations.app, name="migrate")
app.add_typer(quarantine.app, name="quarantine")
app.command("rescue")(rescue.rescue)
app.add_typer(locks.app, name="lock")
app.command("probe")(probe.probe)
app.command("demo")(demo.demo)
app.command("version")(versions.version)

if __name__ == "__main__":
    app()
