"""The Store: all data of a shop in Redis, and all its changes.

It has one object each for products, stock, orders, holds, returns, archived orders, events and inspection. A change
that involves several keys is checked and made in one script, so it is atomic. The methods do not repeat the checks of
their scripts: they turn the reply of a script into a value, or into an error of `service.domain.errors`. (A
repeated order may be read without place_order.lua: recent_orders.py.)
"""

from collections.abc import Callable, Sequence
from typing import Any

from service.domain.times import Milliseconds
from service.metrics.counters import Metrics
from service.settings import Durability
from service.storage import keys
from service.storage.archive import Archive
from service.storage.backlog import HoldsBacklog
from service.storage.board import Board
from service.storage.client import RedisClient
from service.storage.engine_check import EngineCheck
from service.storage.engine_status import EngineStatusReader
from service.storage.events import Events
from service.storage.expired_holds import ExpiredHolds
from service.storage.holds import Holds
from service.storage.id_ranges import IdRanges
from service.storage.inspection import Inspection
from service.storage.layout import Layout
from service.storage.orders import Orders
from service.storage.partition import Partition
from service.storage.products import Products
from service.storage.recent_orders import RecentOrders
from service.storage.restored import RestoredShop
from service.storage.returns import Returns
from service.storage.sender import CommandSender
from service.storage.stock import Stock
from service.storage.tracked_products import TrackedProducts


class Store:
    """One shop in Redis."""

    def __init__(
        self,
        sender: CommandSender,
        *,
        shop: str,
        durability: Durability,
        events_max: int,
        refusals_max: int = 1_000_000,
        clock: Callable[[], Milliseconds] | None = None,
        engine_check: EngineCheck | None = None,
        metrics: Metrics | None = None,
        has_room: Callable[[], bool] | None = None,
        tracked: Callable[[], TrackedProducts[Any]] | None = None,
        partition: Partition | None = None,
        recent_orders: RecentOrders | None = None,
    ) -> None:
        """Create all objects of the Store. The other arguments are those of RedisClient.

        `partition`: if this is the Store of one partition of a shop; `shop` is the name of the partition then.
        `recent_orders`: of all Stores of a worker; None: of this Store only.
        """
        client = RedisClient(
            sender,
            shop=shop,
            durability=durability,
            events_max=events_max,
            refusals_max=refusals_max,
            clock=clock,
            engine_check=engine_check,
            metrics=metrics,
            has_room=has_room,
            tracked=tracked,
            id_step=1 if partition is None else partition.all.count,
            id_remainder=0 if partition is None else partition.number,
        )
        if partition is not None:
            partition.join(client)
        self.partitions: Sequence[Store] = (self,)
        self.partition = partition
        self.metrics = client.metrics
        self.check = client.check
        self.check_writable = client.check_writable
        self.products = Products(client, partition)
        self.stock = Stock(client, self.products, partition)
        backlog = HoldsBacklog()
        self.archive = Archive(client)
        self.skipped = IdRanges(client, keys.skipped(shop))
        self.orders = Orders(client, backlog, self.archive, self.skipped, recent_orders or RecentOrders(), partition)
        self.holds = Holds(client, self.orders)
        self.expired_holds = ExpiredHolds(client, backlog)
        self.returns = Returns(client, self.orders)
        self.events = Events(client)
        self.restored = RestoredShop(client, self.events, self.archive, self.skipped)
        self.layout = Layout(client)
        self.inspection = Inspection(client)
        self.board = Board(client)
        self.engine_status = EngineStatusReader(client)
        self.client = client
        """Sends the commands of this Store."""

    @property
    def server_id(self) -> str:
        """The id of the running server. After a restart or a failover it is another one."""
        return self.client.server_id
