"""The routers of one node, wired together."""

from __future__ import annotations

from brainy.clock import Clock
from brainy.config.settings import NodeSettings
from brainy.ids import Ids
from brainy.rpc.channel import ChannelPool
from brainy_node.router.comparing import Comparing
from brainy_node.router.fan_out import FanOut
from brainy_node.router.peers import Peers
from brainy_node.router.reads import ReadRouter
from brainy_node.router.recorded import RecordedQueries
from brainy_node.router.replaying import Replaying
from brainy_node.router.scans import ScanRouter
from brainy_node.router.search import SearchRouter
from brainy_node.router.served import ServedBook
from brainy_node.router.shadow import ShadowReads
from brainy_node.router.statistics import StatisticsRouter
from brainy_node.router.trials import TrialBook
from brainy_node.router.view import RoutingRefresher
from brainy_node.router.weighted import WeightedReads
from brainy_node.router.writes import WriteRouter
from brainy_node.runtime.moves import OpenNamespaces
from brainy_node.runtime.ports import Runtimes


class FrontDoor:
    """Everything a node answers for a whole namespace. Channels are closed by who made them."""

    def __init__(
        self,
        runtimes: Runtimes,
        channels: ChannelPool,
        *,
        settings: NodeSettings,
        clock: Clock,
        ids: Ids,
        served: ServedBook | None = None,
    ) -> None:
        self.runtimes: Runtimes = OpenNamespaces(runtimes)
        self.clock = clock
        self.ids = ids
        self.peers = Peers(channels, clock=clock)
        self.refresher = RoutingRefresher(clock=clock, ids=ids)
        fan_out = FanOut(self.peers, self.refresher, clock=clock)
        limit = settings.max_batch_records
        #: How clients are served, by generation.
        self.served = served or ServedBook(clock=clock)
        #: Reads tried on the target of a migration, and what came of them.
        self.trials = TrialBook()
        self.recorded = RecordedQueries(ids=ids, capacity=settings.recorded_queries)
        comparing = Comparing(fan_out, clock=clock)
        self.shadow = ShadowReads(comparing, self.trials, self.recorded, clock=clock)
        self.replaying = Replaying(comparing, self.recorded, fan_out, clock=clock)
        self.weighted = WeightedReads(self.refresher, self.trials, self.served, clock=clock)
        self.search = SearchRouter(fan_out, self.weighted, self.shadow, clock=clock, max_batch=limit)
        self.reads = ReadRouter(fan_out, self.weighted, self.shadow, max_batch=limit)
        self.fan_out = fan_out
        self.scans = ScanRouter(self.peers, self.refresher, clock=clock)
        self.writes = WriteRouter(self.peers, self.refresher, self.served, clock=clock, ids=ids, max_batch=limit)
        self.statistics = StatisticsRouter(fan_out, self.refresher, self.search)
