"""A strategy on its way to being weighed, and the steps, reasons and risks that several strategies share. Pure."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from typing import Literal

from brainy.advice.figures import Predictor
from brainy.advice.situation import Situation
from brainy.advice.values import Figures, Risk, Step, Way
from brainy.legacy.wording import many, span

FILE = "before.backup"
LATER = "later.backup"
#: Name of the pool that green's nodes are labelled with.
GREEN = "green"


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


KEEPS_VECTORS = "it keeps the vectors as they are, or missing: nothing is embedded"
SOURCE_STAYS = (
    "the source namespace, which stays as it is: point the applications at it again. "
    "What was written to the new namespace since is not in it"
)


def abort_or(on: Setting) -> str:
    """Return the way back of a migration within the namespace."""
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


def upgrade(on: Setting, draft: Draft, strategy: str, *, pool: str = "") -> None:
    """Steps, reasons and risks of a migration within the namespace while writes go on."""
    facts = on.at.facts
    if facts.state == "empty":
        draft.blockers.append("nothing is there to be upgraded")
        return
    on_the_spot(on, draft)
    safety_copy(on, draft)
    if facts.from_tree and on.at.old_writers:
        if not facts.following:
            draft.do(f"brainy follow {on.source} --on", "take over what Brainy processes go on writing")
        draft.why.append("Brainy processes may go on writing: the cluster follows them")
        draft.risk(
            "LATER_WORD", "an item that Brainy and a client of the cluster both change has the state of the later write"
        )
    serve(on, draft)
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
        f"brainy migrate plan {on.source} --strategy {strategy}{to}{limit(on)}",
        "what would be done, why and what it takes; kept as a plan, which start --plan executes",
    )
    draft.do(
        f"brainy migrate start {on.source} --strategy {strategy}{to} --watch{limit(on)}",
        "build, follow, prove equal, switch; stays until it has ended",
    )
    draft.do(f"brainy status {on.source}", "the generation in service, and that every shard answers")
    if facts.state == "brainy" or on.at.old_writers:
        draft.do("", "let the applications use the cluster instead of Brainy, one after the other")
        draft.confirm.append("when the last Brainy process stops, so that following and mirroring can end")
    if facts.state == "brainy" and not on.at.old_writers:
        draft.confirm.append("no Brainy process writes any more: nobody would see it, nor it the cluster")


def on_the_spot(on: Setting, draft: Draft) -> None:
    """What rules out everything that builds beside the source."""
    facts = on.at.facts
    if on.at.target is not None:
        draft.blockers.append(f"it shall end up in {on.at.target}, and this leaves it where it is")
    if on.at.keep_source and facts.state == "brainy":
        draft.blockers.append("it adds objects under cluster/ in the source's prefix, where nothing may change")
    elif on.at.keep_source:
        draft.drawbacks.append("it adds objects under cluster/, where the cluster writes already")
    if not on.at.vectors:
        draft.blockers.append(KEEPS_VECTORS)
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
    mixed(on, draft)


def mixed(on: Setting, draft: Draft) -> None:
    """Speak against it where trees of several versions lie together."""
    lengths = {length: count for length, count in on.at.facts.dimensions.items() if length}
    if len(lengths) > 1:
        others = sum(lengths.values()) - max(lengths.values())
        draft.risk("MIXED_DIMENSIONS", f"{many(others, 'noun')} of other vector lengths are kept and not indexed")
        draft.confirm.append("which vector length is the right one")


def standing_still(on: Setting, draft: Draft) -> None:
    """Add what writers that must stop cost, or rule it out."""
    pause = draft.figures.write_pause_seconds
    if not on.at.written:
        draft.why.append("nobody writes to the source, so nobody has to stand still")
    elif pause is None:
        draft.drawbacks.append("how long writes would stand still is not known: nothing was counted")
        if on.at.downtime <= 0:
            draft.blockers.append("writes have to stand still for a time, and may not at all")
    elif pause > on.at.downtime:
        draft.blockers.append(too_long(pause, on.at.downtime))
    if not on.at.vectors and draft.strategy is not Way.SPARSE_IMPORT:
        draft.blockers.append(KEEPS_VECTORS)
    if on.at.target is None and draft.strategy is not Way.DEDICATED and not on.at.keep_source and on.at.shared:
        draft.drawbacks.append("every application has to be pointed at another namespace")
    unfit = on.at.facts.quarantined or 0
    if unfit:
        draft.risk("LEFT_BEHIND", f"{many(unfit, 'object')} cannot be read and are in no backup; they stay")
        draft.confirm.append(f"{many(unfit, 'object')} may be left behind: brainy inspect {on.source}")
    mixed(on, draft)


def too_long(pause: float, allowed: float) -> str:
    """Return why a pause is longer than allowed."""
    may = "not at all" if allowed <= 0 else f"for {span(allowed)}"
    return f"writes would stand still for about {span(max(1.0, pause))}, and may {may}"


def backup(on: Setting, draft: Draft) -> None:
    """Add the steps that back the source up."""
    draft.do(f"brainy backup {on.source} -o {FILE} --format native", "one file; only reads the bucket")
    draft.do(f"brainy verify-backup {FILE}", "prove it whole")


def restore(on: Setting, draft: Draft, what: str) -> None:
    """Add the steps that restore into the target."""
    draft.do(f"brainy up {on.target} --nodes {on.nodes} --shards {on.shards}", "a cluster for the new namespace")
    draft.do(f"brainy restore {FILE} {on.target} --dry-run", "compare dimensions and what is there; changes nothing")
    draft.do(f"brainy restore {FILE} {on.target}", what)


def arrive(on: Setting, draft: Draft, source: str, what: str) -> None:
    """Bring data from elsewhere into the target, through its migration engine."""
    draft.do(f"brainy up {on.target} --nodes {on.nodes} --shards {on.shards}", "a cluster for the new namespace")
    draft.do(f"brainy migrate plan {on.target} {source}", "what would be done, and whether anything stands in its way")
    draft.do(f"brainy migrate start {on.target} {source} --watch", what)


def verify(on: Setting, draft: Draft) -> None:
    """Add the comparison of both namespaces."""
    draft.do(f"brainy verify {on.source} {on.target}", "compare both item by item, before anything uses the new one")


def finish_elsewhere(on: Setting, draft: Draft) -> None:
    """Add the steps after the data have arrived in another namespace."""
    draft.do(
        f"brainy migrate start {on.target} --watch",
        "pack it into a generation, so that nodes start in seconds; any time later",
    )


def move_clients(on: Setting, draft: Draft) -> None:
    """Add the step that points the applications at the target."""
    draft.do("", f"point the applications at {on.target}")


def moving_tree(on: Setting, draft: Draft) -> None:
    """Add the risk of a tree that is written while it is read."""
    if on.at.old_writers:
        draft.risk("MOVING_TREE", "Brainy's tree has no point in time: what is written meanwhile may be in or not")


def safety_copy(on: Setting, draft: Draft) -> None:
    """Add the backup before anything is changed."""
    if on.at.rollback:
        draft.do(f"brainy backup {on.source} -o {FILE} --format native", "the way back")
        draft.do(f"brainy verify-backup {FILE}", "prove it whole")


def serve(on: Setting, draft: Draft) -> None:
    """Add the step that starts a cluster, where there is none."""
    if on.at.facts.state == "brainy":
        draft.do(f"brainy probe {on.source}", "whether the store keeps what writes rest on")
        draft.do(f"brainy up {on.source} --nodes {on.nodes} --shards {on.shards}", "serve it in place, as it is")
    else:
        draft.do(f"brainy status {on.source}", "its cluster runs, or brainy up starts it")


def limit(on: Setting) -> str:
    """Return the option that accepts what cannot be read."""
    unfit = on.at.facts.quarantined or 0
    return f" --quarantine-limit {unfit}" if unfit else ""
