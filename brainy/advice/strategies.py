"""The seven strategies, each weighed in a situation: what speaks for it, what rules it out, what is to be done. Pure.

One function a strategy. Commands are those of this product; what is done outside of it has none. ``NEW`` stands for
the target where the operator named none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from brainy.advice.drafts import (
    FILE,
    GREEN,
    LATER,
    SOURCE_STAYS,
    Draft,
    Setting,
    abort_or,
    arrive,
    backup,
    finish_elsewhere,
    limit,
    move_clients,
    moving_tree,
    on_the_spot,
    restore,
    safety_copy,
    serve,
    standing_still,
    too_long,
    upgrade,
    verify,
)
from brainy.advice.values import Way
from brainy.legacy.wording import many


def backup_and_restore(on: Setting) -> Draft:
    """One file, a new namespace."""
    draft = Draft(
        strategy=Way.BACKUP_RESTORE,
        engine="commands",
        figures=on.predict.carried(),
        way_back=SOURCE_STAYS,
        why=[
            "the source is only read, and stays the way back",
            "the new namespace can be tried before anything uses it",
        ],
    )
    if on.at.facts.state == "empty":
        draft.why = ["a backup can be restored into it"]
        draft.do(f"brainy verify-backup {FILE}", "prove the file whole")
        draft.do(
            f"brainy migrate start {on.source} --from-backup {FILE} --watch",
            "make it the first generation; nothing is changed before it is proven",
        )
        return draft
    standing_still(on, draft)
    backup(on, draft)
    arrive(on, draft, f"--from-backup {FILE}", "make it the first generation of a namespace that holds nothing")
    verify(on, draft)
    move_clients(on, draft)
    if on.at.old_writers:
        draft.drawbacks.append("what Brainy processes write after the backup began is not in it")
        draft.confirm.append("no Brainy process writes from the beginning of the backup on")
    moving_tree(on, draft)
    return draft


def in_place_upgrade(on: Setting) -> Draft:
    """The next generation beside the one that serves."""
    draft = Draft(
        strategy=Way.IN_PLACE,
        engine="own",
        figures=on.predict.in_place(),
        way_back=abort_or(on),
        why=[
            "no data leaves the bucket, and Brainy's own objects are never changed",
            "both sides are proven equal before one conditional write switches",
        ],
    )
    upgrade(on, draft, "in-place-upgrade")
    return draft


def sparse_import(on: Setting) -> Draft:
    """Texts in, vectors made anew."""
    draft = Draft(
        strategy=Way.SPARSE_IMPORT,
        engine="commands",
        figures=on.predict.embedded(),
        way_back=SOURCE_STAYS,
        why=["all vectors are of one model, which is on record and cannot be mixed"],
    )
    if on.at.facts.state == "empty":
        draft.why.append("nothing is there yet")
        draft.do(f"brainy import FILE {on.source}", "import JSON or JSON Lines; texts become vectors on the way")
        draft.confirm.append("every row has a text, or a vector of its own")
        return draft
    if on.at.vectors:
        draft.blockers.append("there are vectors, and they are to be kept: embedding anew replaces every one")
    without = on.at.facts.without_vectors
    if without:
        draft.why.append(f"{many(without, 'noun')} without a vector would stay unfound otherwise")
    draft.do(f"brainy backup {on.source} -o texts.json", "write Brainy's JSON: ids, metadata, verbs")
    draft.do("", "leave out the vectors, one row a line: docs/runbooks/sparse-import.md has the lines of Python")
    draft.do(f"brainy import rows.jsonl {on.target}", "embed the texts; killed, the same command goes on")
    draft.do(f'brainy search {on.target} --text "something that is there"', "look at what a search finds")
    move_clients(on, draft)
    standing_still(on, draft)
    draft.risk("NO_TEXT", "a noun without a text is skipped and listed: it is not in the new namespace")
    draft.risk("OTHER_RESULTS", "another model finds other neighbours: compare searches before anything moves")
    draft.confirm.append("the texts the vectors were once made of are in the metadata")
    return draft


def dedicated_namespace(on: Setting) -> Draft:
    """A prefix of its own."""
    draft = Draft(
        strategy=Way.DEDICATED,
        engine="commands",
        figures=on.predict.in_place() if on.served else on.predict.carried(),
        way_back=SOURCE_STAYS,
        why=["an own prefix ends collisions with other writers for good"],
    )
    if on.at.facts.state == "empty":
        draft.blockers.append("nothing is there to be moved: start with the prefix you want")
        return draft
    if on.at.shared:
        draft.why.append("the prefix is shared now")
    elif not on.at.isolate:
        draft.drawbacks.append("nobody else uses the prefix")
    standing_still(on, draft)
    if on.served:
        draft.engine = "own"
        draft.way_back = (
            "until the switch: brainy migrate abort ID. After it the source is as it was then, and closed: what was"
            " written since is in the new namespace, which can be moved on"
        )
        draft.why.append("its cluster serves on while the new one follows it; one record switches, and then it says so")
        draft.do(f"brainy status {on.source}", "its cluster runs, or brainy up starts it")
        arrive(on, draft, f"--from {on.source}", "copy, follow, prove equal, switch; stays until it has ended")
    elif not on.at.old_writers:
        draft.engine = "own"
        arrive(
            on, draft, f"--from {on.source} --writers-stopped", "copy, prove equal, switch; stays until it has ended"
        )
    else:
        backup(on, draft)
        arrive(on, draft, f"--from-backup {FILE}", "make it the first generation under the new prefix")
    if not on.served:
        verify(on, draft)
    move_clients(on, draft)
    services = on.at.facts.services
    if len(services) > 1:
        draft.risk(
            "SERVICES_TOGETHER",
            f"items of {len(services)} services ({', '.join(services[:3])}) move together: no command divides them",
        )
    draft.confirm.append("which applications use the old prefix, and that all of them are told the new one")
    moving_tree(on, draft)
    return draft


def blue_green(on: Setting) -> Draft:
    """Two whole sides; within a namespace, or between two."""
    if on.at.target is not None or on.at.keep_source or on.at.isolate:
        return _two_namespaces(on)
    draft = Draft(
        strategy=Way.BLUE_GREEN,
        engine="own",
        figures=on.predict.in_place(),
        way_back=abort_or(on),
        why=[
            "the next generation is the green side: whole, in step with the blue one, proven equal, then one switch",
            "reads never wait",
        ],
    )
    if on.at.separate_nodes:
        draft.why.append("green is on nodes of its own: while it is built, blue's give nothing away but reads")
        upgrade(on, draft, "blue-green", pool=GREEN)
        draft.confirm.append(f"the machines of pool {GREEN} are there, and carry the whole namespace by themselves")
    else:
        draft.drawbacks.append("green is on the same nodes, for want of others: they hold both sides for the time")
        upgrade(on, draft, "in-place-upgrade")
    return draft


def _two_namespaces(on: Setting) -> Draft:
    draft = Draft(
        strategy=Way.BLUE_GREEN,
        engine="commands",
        figures=on.predict.carried(again=True),
        way_back=SOURCE_STAYS,
        why=["green is whole in a namespace and on nodes of its own, and blue serves until the last moment"],
    )
    if on.at.facts.state == "empty":
        draft.blockers.append("there is no blue side")
        return draft
    standing_still(on, draft)
    backup(on, draft)
    restore(on, draft, "fill the green side")
    draft.do("", "compare both sides for as long as you like; blue serves")
    draft.do("", "stop writes to blue")
    draft.do(
        f"brainy backup {on.source} -o {LATER} --format native --since {FILE}",
        "what was written meanwhile"
        + (
            "; Brainy's tree has no log of ours, so all of it is read and compared"
            if on.at.facts.state == "brainy"
            else ""
        ),
    )
    draft.do(f"brainy restore {LATER} {on.target} --clear-existing", "bring green up to it; deletes too")
    verify(on, draft)
    move_clients(on, draft)
    finish_elsewhere(on, draft)
    if not on.at.separate_nodes:
        draft.drawbacks.append("two clusters run on the same machines for the time")
    draft.risk("LATE_WRITES", "what blue is given after the last backup is not on green: nothing follows across")
    draft.confirm.append("nobody writes to blue from the last backup on")
    moving_tree(on, draft)
    return draft


def rolling(on: Setting) -> Draft:
    """Node by node, the writer last."""
    draft = Draft(
        strategy=Way.ROLLING,
        engine="own",
        figures=on.predict.rolling(),
        way_back=abort_or(on),
        why=[
            "nodes answer from the new generation one after the other, and can be taken back until writes move",
            "reads never wait",
        ],
    )
    if on.nodes < 2:
        draft.drawbacks.append("with one node there is nothing to roll: an in-place upgrade does the same")
    upgrade(on, draft, "rolling")
    return draft


def coordinated(on: Setting) -> Draft:
    """An upgrade in place while everybody stands still."""
    draft = Draft(
        strategy=Way.COORDINATED,
        engine="commands",
        figures=on.predict.coordinated(),
        way_back=abort_or(on),
        why=["nothing is written while it runs, so what was there before is what is there after"],
    )
    if on.at.facts.state == "empty":
        draft.blockers.append("nothing is there to be upgraded")
        return draft
    pause = draft.figures.write_pause_seconds
    if pause is None and on.at.downtime != float("inf"):
        draft.drawbacks.append("how long everybody would stand still is not known")
    elif pause is not None and pause > on.at.downtime:
        draft.blockers.append(too_long(pause, on.at.downtime))
    if not on.at.old_writers:
        draft.drawbacks.append("nobody has to stand still: no Brainy process writes, and the cluster's clients may")
    on_the_spot(on, draft)
    draft.do("", "announce the window; stop every Brainy process, or make it read-only and wait until it has flushed")
    draft.do(f"brainy inspect {on.source}", "its last write must be older than the window, its locks must be over")
    safety_copy(on, draft)
    serve(on, draft)
    draft.do(
        f"brainy lock run maintenance -n {on.source} -- "
        f"brainy migrate start {on.source} --strategy coordinated --writers-stopped --watch{limit(on)}",
        "migrate under a lock that others see; reads move together, writes last; stays until it has ended",
    )
    draft.do(f"brainy status {on.source}", "compare the counts with those of the inspection")
    draft.do("", "let the applications in again, as clients of the cluster")
    draft.confirm.append("every process that writes is known, and has stopped: no lock of the cluster stops a Brainy")
    return draft


STRATEGIES: Mapping[Way, Callable[[Setting], Draft]] = {
    Way.BACKUP_RESTORE: backup_and_restore,
    Way.IN_PLACE: in_place_upgrade,
    Way.SPARSE_IMPORT: sparse_import,
    Way.DEDICATED: dedicated_namespace,
    Way.BLUE_GREEN: blue_green,
    Way.ROLLING: rolling,
    Way.COORDINATED: coordinated,
}
