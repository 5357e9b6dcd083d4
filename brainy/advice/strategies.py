"""The seven strategies, each weighed in a situation: what speaks for it, what rules it out, what is to be done. Pure.

One function a strategy. Commands are those of this product; what is done outside of it has none. ``NEW`` stands for
the target where the operator named none.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from brainy.advice.figures import Predictor
from brainy.advice.situation import Situation
from brainy.advice.values import Figures, Risk, Step, Way
from brainy.legacy.wording import many, span

_FILE = "before.backup"
_LATER = "later.backup"
#: Name of the pool that green's nodes are labelled with.
_GREEN = "green"


@dataclass(slots=True, kw_only=True)
class Draft:
    """A strategy weighed, before it has a rank."""

    strategy: Way
    engine: Literal["own", "commands"]
    figures: Figures
    way_back: str
    why: list[str] = field(default_factory=list)
    #: Rules it out.
    blockers: list[str] = field(default_factory=list)
    #: Speaks against it.
    drawbacks: list[str] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    risks: list[Risk] = field(default_factory=list)
    confirm: list[str] = field(default_factory=list)

    def do(self, command: str, what: str) -> None:
        """Add a step."""
        self.steps.append(Step(command=command, what=what))

    def risk(self, code: str, message: str) -> None:
        """Add a risk."""
        self.risks.append(Risk(code=code, message=message))


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What the strategies are weighed in."""

    at: Situation
    predict: Predictor
    nodes: int
    shards: int

    @property
    def served(self) -> bool:
        """Whether a cluster serves it, so that its writes can be followed to another place."""
        return self.at.facts.state in ("served", "generation")

    @property
    def source(self) -> str:
        """The namespace as commands name it."""
        return shlex.quote(self.at.facts.namespace)

    @property
    def target(self) -> str:
        """Where it goes to, if it goes elsewhere."""
        return shlex.quote(self.at.target or "NEW")


def backup_and_restore(on: Setting) -> Draft:
    """One file, a new namespace."""
    draft = Draft(
        strategy=Way.BACKUP_RESTORE,
        engine="commands",
        figures=on.predict.carried(),
        way_back=_SOURCE_STAYS,
        why=[
            "the source is only read, and stays the way back",
            "the new namespace can be tried before anything uses it",
        ],
    )
    if on.at.facts.state == "empty":
        draft.why = ["a backup can be restored into it"]
        draft.do(f"brainy verify-backup {_FILE}", "prove the file whole")
        draft.do(
            f"brainy migrate start {on.source} --from-backup {_FILE} --watch",
            "make it the first generation; nothing is changed before it is proven",
        )
        return draft
    _standing_still(on, draft)
    _backup(on, draft)
    _arrive(on, draft, f"--from-backup {_FILE}", "make it the first generation of a namespace that holds nothing")
    _verify(on, draft)
    _move_clients(on, draft)
    if on.at.old_writers:
        draft.drawbacks.append("what Brainy processes write after the backup began is not in it")
        draft.confirm.append("no Brainy process writes from the beginning of the backup on")
    _moving_tree(on, draft)
    return draft


def in_place_upgrade(on: Setting) -> Draft:
    """The next generation beside the one that serves."""
    draft = Draft(
        strategy=Way.IN_PLACE,
        engine="own",
        figures=on.predict.in_place(),
        way_back=_abort_or(on),
        why=[
            "no data leaves the bucket, and Brainy's own objects are never changed",
            "both sides are proven equal before one conditional write switches",
        ],
    )
    _upgrade(on, draft, "in-place-upgrade")
    return draft


def sparse_import(on: Setting) -> Draft:
    """Texts in, vectors made anew."""
    draft = Draft(
        strategy=Way.SPARSE_IMPORT,
        engine="commands",
        figures=on.predict.embedded(),
        way_back=_SOURCE_STAYS,
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
    _move_clients(on, draft)
    _standing_still(on, draft)
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
        way_back=_SOURCE_STAYS,
        why=["an own prefix ends collisions with other writers for good"],
    )
    if on.at.facts.state == "empty":
        draft.blockers.append("nothing is there to be moved: start with the prefix you want")
        return draft
    if on.at.shared:
        draft.why.append("the prefix is shared now")
    elif not on.at.isolate:
        draft.drawbacks.append("nobody else uses the prefix")
    _standing_still(on, draft)
    if on.served:
        draft.engine = "own"
        draft.way_back = (
            "until the switch: brainy migrate abort ID. After it the source is as it was then, and closed: what was"
            " written since is in the new namespace, which can be moved on"
        )
        draft.why.append("its cluster serves on while the new one follows it; one record switches, and then it says so")
        draft.do(f"brainy status {on.source}", "its cluster runs, or brainy up starts it")
        _arrive(on, draft, f"--from {on.source}", "copy, follow, prove equal, switch; stays until it has ended")
    elif not on.at.old_writers:
        draft.engine = "own"
        _arrive(
            on, draft, f"--from {on.source} --writers-stopped", "copy, prove equal, switch; stays until it has ended"
        )
    else:
        _backup(on, draft)
        _arrive(on, draft, f"--from-backup {_FILE}", "make it the first generation under the new prefix")
    if not on.served:
        _verify(on, draft)
    _move_clients(on, draft)
    services = on.at.facts.services
    if len(services) > 1:
        draft.risk(
            "SERVICES_TOGETHER",
            f"items of {len(services)} services ({', '.join(services[:3])}) move together: no command divides them",
        )
    draft.confirm.append("which applications use the old prefix, and that all of them are told the new one")
    _moving_tree(on, draft)
    return draft


def blue_green(on: Setting) -> Draft:
    """Two whole sides; within a namespace, or between two."""
    if on.at.target is not None or on.at.keep_source or on.at.isolate:
        return _two_namespaces(on)
    draft = Draft(
        strategy=Way.BLUE_GREEN,
        engine="own",
        figures=on.predict.in_place(),
        way_back=_abort_or(on),
        why=[
            "the next generation is the green side: whole, in step with the blue one, proven equal, then one switch",
            "reads never wait",
        ],
    )
    if on.at.separate_nodes:
        draft.why.append("green is on nodes of its own: while it is built, blue's give nothing away but reads")
        _upgrade(on, draft, "blue-green", pool=_GREEN)
        draft.confirm.append(f"the machines of pool {_GREEN} are there, and carry the whole namespace by themselves")
    else:
        draft.drawbacks.append("green is on the same nodes, for want of others: they hold both sides for the time")
        _upgrade(on, draft, "in-place-upgrade")
    return draft


def _two_namespaces(on: Setting) -> Draft:
    draft = Draft(
        strategy=Way.BLUE_GREEN,
        engine="commands",
        figures=on.predict.carried(again=True),
        way_back=_SOURCE_STAYS,
        why=["green is whole in a namespace and on nodes of its own, and blue serves until the last moment"],
    )
    if on.at.facts.state == "empty":
        draft.blockers.append("there is no blue side")
        return draft
    _standing_still(on, draft)
    _backup(on, draft)
    _restore(on, draft, "fill the green side")
    draft.do("", "compare both sides for as long as you like; blue serves")
    draft.do("", "stop writes to blue")
    draft.do(
        f"brainy backup {on.source} -o {_LATER} --format native --since {_FILE}",
        "what was written meanwhile"
        + (
            "; Brainy's tree has no log of ours, so all of it is read and compared"
            if on.at.facts.state == "brainy"
            else ""
        ),
    )
    draft.do(f"brainy restore {_LATER} {on.target} --clear-existing", "bring green up to it; deletes too")
    _verify(on, draft)
    _move_clients(on, draft)
    _finish_elsewhere(on, draft)
    if not on.at.separate_nodes:
        draft.drawbacks.append("two clusters run on the same machines for the time")
    draft.risk("LATE_WRITES", "what blue is given after the last backup is not on green: nothing follows across")
    draft.confirm.append("nobody writes to blue from the last backup on")
    _moving_tree(on, draft)
    return draft


def rolling(on: Setting) -> Draft:
    """Node by node, the writer last."""
    draft = Draft(
        strategy=Way.ROLLING,
        engine="own",
        figures=on.predict.rolling(),
        way_back=_abort_or(on),
        why=[
            "nodes answer from the new generation one after the other, and can be taken back until writes move",
            "reads never wait",
        ],
    )
    if on.nodes < 2:
        draft.drawbacks.append("with one node there is nothing to roll: an in-place upgrade does the same")
    _upgrade(on, draft, "rolling")
    return draft


def coordinated(on: Setting) -> Draft:
    """An upgrade in place while everybody stands still."""
    draft = Draft(
        strategy=Way.COORDINATED,
        engine="commands",
        figures=on.predict.coordinated(),
        way_back=_abort_or(on),
        why=["nothing is written while it runs, so what was there before is what is there after"],
    )
    if on.at.facts.state == "empty":
        draft.blockers.append("nothing is there to be upgraded")
        return draft
    pause = draft.figures.write_pause_seconds
    if pause is None and on.at.downtime != float("inf"):
        draft.drawbacks.append("how long everybody would stand still is not known")
    elif pause is not None and pause > on.at.downtime:
        draft.blockers.append(_too_long(pause, on.at.downtime))
    if not on.at.old_writers:
        draft.drawbacks.append("nobody has to stand still: no Brainy process writes, and the cluster's clients may")
    _on_the_spot(on, draft)
    draft.do("", "announce the window; stop every Brainy process, or make it read-only and wait until it has flushed")
    draft.do(f"brainy inspect {on.source}", "its last write must be older than the window, its locks must be over")
    _safety_copy(on, draft)
    _serve(on, draft)
    draft.do(
        f"brainy lock run maintenance -n {on.source} -- "
        f"brainy migrate start {on.source} --strategy coordinated --writers-stopped --watch{_limit(on)}",
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

_KEEPS_VECTORS = "it keeps the vectors as they are, or missing: nothing is embedded"
_SOURCE_STAYS = (
    "the source namespace, which stays as it is: point the applications at it again. "
    "What was written to the new namespace since is not in it"
)


def _abort_or(on: Setting) -> str:
    before = (
        "until the switch: brainy migrate abort ID. After it, where it was started with --keep-way-back: "
        "brainy migrate rollback ID. Without that, "
    )
    if on.at.facts.mirrorable:
        deletes = " (beware: it deletes nouns of another length when it starts)" if on.at.facts.endangered else ""
        return before + (
            f"with brainy mirror --on Brainy's tree is kept up to date, and Brainy can be started on it{deletes}; "
            "without, it is as it was when the cluster took over. Else the backup"
        )
    return before + "the backup is the way back, without what was written since"


def _upgrade(on: Setting, draft: Draft, strategy: str, *, pool: str = "") -> None:
    """Steps, reasons and risks of a migration within the namespace while writes go on."""
    facts = on.at.facts
    if facts.state == "empty":
        draft.blockers.append("nothing is there to be upgraded")
        return
    _on_the_spot(on, draft)
    _safety_copy(on, draft)
    if facts.from_tree and on.at.old_writers:
        if not facts.following:
            draft.do(f"brainy follow {on.source} --on", "take over what Brainy processes go on writing")
        draft.why.append("Brainy processes may go on writing: the cluster follows them")
        draft.risk(
            "LATER_WORD", "an item that Brainy and a client of the cluster both change has the state of the later write"
        )
    _serve(on, draft)
    if facts.from_tree and on.at.old_writers:
        draft.do(f"brainy follow {on.source}", "wait until nothing is open and the lag is small")
    if on.at.rollback and facts.mirrorable and facts.from_tree:
        if not facts.mirroring:
            draft.do(f"brainy mirror {on.source} --on", "write commits back into Brainy's tree: the way back to Brainy")
        draft.risk(
            "MIRROR_LIMITS",
            "what Brainy cannot hold is counted by brainy mirror; it searches new items after a restart",
        )
    elif on.at.rollback:
        draft.drawbacks.append("there is no way back after the switch but the backup")
    to = f" --pool {pool}" if pool else ""
    if pool:
        draft.do(
            f"brainy add-nodes {on.source} --nodes {on.nodes} --pool {pool}",
            f"start the nodes that shall hold it; on other machines, nodes with BRAINY_NODE__POOL={pool}",
        )
    draft.do(
        f"brainy migrate plan {on.source} --strategy {strategy}{to}{_limit(on)}",
        "what would be done, why and what it takes; kept as a plan, which start --plan executes",
    )
    draft.do(
        f"brainy migrate start {on.source} --strategy {strategy}{to} --watch{_limit(on)}",
        "build, follow, prove equal, switch; stays until it has ended",
    )
    draft.do(f"brainy status {on.source}", "the generation in service, and that every shard answers")
    if facts.state == "brainy" or on.at.old_writers:
        draft.do("", "let the applications use the cluster instead of Brainy, one after the other")
        draft.confirm.append("when the last Brainy process stops, so that following and mirroring can end")
    if facts.state == "brainy" and not on.at.old_writers:
        draft.confirm.append("no Brainy process writes any more: nobody would see it, nor it the cluster")


def _on_the_spot(on: Setting, draft: Draft) -> None:
    """What rules out everything that builds beside the source."""
    facts = on.at.facts
    if on.at.target is not None:
        draft.blockers.append(f"it shall end up in {on.at.target}, and this leaves it where it is")
    if on.at.keep_source and facts.state == "brainy":
        draft.blockers.append("it adds objects under cluster/ in the source's prefix, where nothing may change")
    elif on.at.keep_source:
        draft.drawbacks.append("it adds objects under cluster/, where the cluster writes already")
    if not on.at.vectors:
        draft.blockers.append(_KEEPS_VECTORS)
    if on.at.isolate:
        draft.blockers.append("a prefix of its own is wanted, and this leaves the data in the one that is there")
    if facts.migration is not None:
        draft.blockers.append(f"a migration is in charge already: {facts.migration}")
    if facts.endangered:
        draft.risk(
            "WRONG_DIMENSIONS_AT_RISK",
            f"a Brainy that opens the bucket deletes up to {many(facts.endangered, 'noun')} of another length",
        )
    unfit = facts.quarantined or 0
    if unfit:
        draft.risk("QUARANTINED", f"{many(unfit, 'object')} cannot be read and are set aside; their bytes are kept")
        draft.confirm.append(f"{many(unfit, 'object')} may be left out: brainy quarantine list {on.source}")
    _mixed(on, draft)


def _mixed(on: Setting, draft: Draft) -> None:
    lengths = {length: count for length, count in on.at.facts.dimensions.items() if length}
    if len(lengths) > 1:
        others = sum(lengths.values()) - max(lengths.values())
        draft.risk("MIXED_DIMENSIONS", f"{many(others, 'noun')} of other vector lengths are kept and not indexed")
        draft.confirm.append("which vector length is the right one")


def _standing_still(on: Setting, draft: Draft) -> None:
    pause = draft.figures.write_pause_seconds
    if not on.at.written:
        draft.why.append("nobody writes to the source, so nobody has to stand still")
    elif pause is None:
        draft.drawbacks.append("how long writes would stand still is not known: nothing was counted")
        if on.at.downtime <= 0:
            draft.blockers.append("writes have to stand still for a time, and may not at all")
    elif pause > on.at.downtime:
        draft.blockers.append(_too_long(pause, on.at.downtime))
    if not on.at.vectors and draft.strategy is not Way.SPARSE_IMPORT:
        draft.blockers.append(_KEEPS_VECTORS)
    if on.at.target is None and draft.strategy is not Way.DEDICATED and not on.at.keep_source and on.at.shared:
        draft.drawbacks.append("every application has to be pointed at another namespace")
    unfit = on.at.facts.quarantined or 0
    if unfit:
        draft.risk("LEFT_BEHIND", f"{many(unfit, 'object')} cannot be read and are in no backup; they stay")
        draft.confirm.append(f"{many(unfit, 'object')} may be left behind: brainy inspect {on.source}")
    _mixed(on, draft)


def _too_long(pause: float, allowed: float) -> str:
    may = "not at all" if allowed <= 0 else f"for {span(allowed)}"
    return f"writes would stand still for about {span(max(1.0, pause))}, and may {may}"


def _backup(on: Setting, draft: Draft) -> None:
    draft.do(f"brainy backup {on.source} -o {_FILE} --format native", "one file; only reads the bucket")
    draft.do(f"brainy verify-backup {_FILE}", "prove it whole")


def _restore(on: Setting, draft: Draft, what: str) -> None:
    draft.do(f"brainy up {on.target} --nodes {on.nodes} --shards {on.shards}", "a cluster for the new namespace")
    draft.do(f"brainy restore {_FILE} {on.target} --dry-run", "compare dimensions and what is there; changes nothing")
    draft.do(f"brainy restore {_FILE} {on.target}", what)


def _arrive(on: Setting, draft: Draft, source: str, what: str) -> None:
    """Bring data from elsewhere into the target, through its migration engine."""
    draft.do(f"brainy up {on.target} --nodes {on.nodes} --shards {on.shards}", "a cluster for the new namespace")
    draft.do(f"brainy migrate plan {on.target} {source}", "what would be done, and whether anything stands in its way")
    draft.do(f"brainy migrate start {on.target} {source} --watch", what)


def _verify(on: Setting, draft: Draft) -> None:
    draft.do(f"brainy verify {on.source} {on.target}", "compare both item by item, before anything uses the new one")


def _finish_elsewhere(on: Setting, draft: Draft) -> None:
    draft.do(
        f"brainy migrate start {on.target} --watch",
        "pack it into a generation, so that nodes start in seconds; any time later",
    )


def _move_clients(on: Setting, draft: Draft) -> None:
    draft.do("", f"point the applications at {on.target}")


def _moving_tree(on: Setting, draft: Draft) -> None:
    if on.at.old_writers:
        draft.risk("MOVING_TREE", "Brainy's tree has no point in time: what is written meanwhile may be in or not")


def _safety_copy(on: Setting, draft: Draft) -> None:
    if on.at.rollback:
        draft.do(f"brainy backup {on.source} -o {_FILE} --format native", "the way back")
        draft.do(f"brainy verify-backup {_FILE}", "prove it whole")


def _serve(on: Setting, draft: Draft) -> None:
    if on.at.facts.state == "brainy":
        draft.do(f"brainy probe {on.source}", "whether the store keeps what writes rest on")
        draft.do(f"brainy up {on.source} --nodes {on.nodes} --shards {on.shards}", "serve it in place, as it is")
    else:
        draft.do(f"brainy status {on.source}", "its cluster runs, or brainy up starts it")


def _limit(on: Setting) -> str:
    unfit = on.at.facts.quarantined or 0
    return f" --quarantine-limit {unfit}" if unfit else ""
