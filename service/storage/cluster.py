"""A Redis Cluster: one connection to each node that has a shop, and where each shop is now.

All keys of a shop are in one slot, so one node has the whole shop, and each order is one script, as on a single Redis.
A slot can move: by a failover, or because an operator moves it. Then the old node refuses commands (MOVED, ASK,
CLUSTERDOWN, ...) without executing them, and they are sent again, until their timeout. What was sent and got no reply
is never sent again: its outcome is unknown.

https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Self

from service.domain.errors.storage import Overloaded, StorageUnavailable
from service.logger import Logger
from service.metrics.counters import Metrics
from service.storage.addresses import Address
from service.storage.background import BackgroundTasks
from service.storage.cluster_topology import Topology, read_redirection, slot_of
from service.storage.connection import MultiplexedConnection
from service.storage.dial import ClusterExplorer, Execute
from service.storage.engine_check import EngineCheck
from service.storage.pending_command import NobodyWaits, PendingCommand
from service.storage.protocol import pack
from service.storage.replication import Replication, caller_of
from service.storage.sender import ErrorReply

log = Logger()

_REFRESH_SECONDS: Final = 5.0
"""Pause between two questions where the slots are, if nothing happens. A node that was cut off does not say so."""

_MIN_REFRESH_SECONDS: Final = 0.05
"""Pause between two questions if something happens: each needs a connection to several nodes."""

_RESEND_SECONDS: Final = (0.02, 0.06)
"""After this time, at random, a command is sent again that a node has refused."""

_KEEP_SECONDS: Final = 10.0
"""For so long, the connection to a node stays open that has no shop, but was asked for keys that are on their way."""

_LOG_SECONDS: Final = 1.0
"""Pause between two log lines that say that a shop has moved. Nodes that disagree send it to and fro."""

_SENT_AGAIN: Final = frozenset({"MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "READONLY", "LOADING"})
"""Codes of errors that say: not executed, but later or elsewhere it may be."""


class Route:
    """Where the slot of a shop is now. It sends the commands of the shop, as a connection does."""

    def __init__(self, cluster: "Cluster", shop: str, check: EngineCheck) -> None:
        """`check`: of the Redis that has the shop."""
        self.shop = shop
        self.slot = slot_of(shop)
        self.check = check
        self.connection: MultiplexedConnection | None = None
        self.address: Address | None = None
        self.moved_at = 0.0
        self.logged_at = -_LOG_SECONDS
        self.waiting: deque[PendingCommand] = deque()
        """Commands that no node has executed yet. They are sent again in a moment."""
        self.is_due = False
        self.reason = "the nodes of the cluster are not known yet"
        self._cluster = cluster

    def send(self, *command: bytes | str | int, safe_to_repeat: bool = False) -> asyncio.Future[Any]:
        """Send a command, see MultiplexedConnection.send."""
        if self.connection is None or self.waiting:
            self._cluster.check_limit(self)
        if self.connection is None:
            return self._cluster.wait(self, command, safe_to_repeat=safe_to_repeat)
        return self.connection.send(*command, safe_to_repeat=safe_to_repeat, route=self)

    def has_room(self) -> bool:
        """Return whether the node answers so fast that new work will not wait for long."""
        if self.waiting and self._cluster.is_full(self):
            return False
        return self.connection is None or self.connection.has_room()


class Cluster:
    """The nodes that have the shops of this worker. `async with` connects to them, and closes the connections."""

    def __init__(
        self,
        url: str,
        *,
        timeout: float,
        max_in_flight: int,
        replicas: int = 0,
        metrics: Metrics | None = None,
    ) -> None:
        """Prepare connections. Raise UnsupportedRedis for a wrong URL.

        `replicas`: how many of a node's replicas must have a change before it is answered. The other arguments are
        those of MultiplexedConnection, for each node.
        """
        self._url = url
        self._explorer = ClusterExplorer(url, timeout=timeout)
        self._timeout = timeout
        self._max_in_flight = max_in_flight
        self._replicas = replicas
        self._metrics = metrics
        self._nodes: dict[Address, MultiplexedConnection] = {}
        self._unused: set[MultiplexedConnection] = set()
        """Connections that are closed in a moment."""
        self._routes: list[Route] = []
        self._asked: dict[Address, tuple[Route, float]] = {}
        """The last command for a slot that is on its way to a node: its route, and when it was sent."""
        self._topology: Topology | None = None
        self._unreachable = ""
        self._tasks = BackgroundTasks()
        self._must_refresh = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._tasks.start(self._keep_up_to_date(), "cluster")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._tasks.close()
        for node in (*self._nodes.values(), *self._unused):
            await node.close()
        for route in self._routes:
            self._fail_all(route, "the service is shutting down")

    def route(self, shop: str, check: EngineCheck) -> Route:
        """Return the way to a shop. `check`: of the Redis that has it."""
        route = Route(self, shop, check)
        check.on_replica = self.refresh
        self._routes.append(route)
        if self._topology is not None and (owner := self._topology.owner(route.slot)) is not None:
            self._attach(route, owner)
        else:
            self.refresh()
        return route

    def drop(self, route: Route) -> None:
        """Forget the way to a shop. None of its commands may wait."""
        self._routes.remove(route)

    @property
    def in_flight(self) -> int:
        """The number of commands that wait for a reply."""
        waiting = sum(len(route.waiting) for route in self._routes)
        return waiting + sum(node.in_flight for node in self._nodes.values())

    def refresh(self) -> None:
        """Ask in a moment where the slots are."""
        self._must_refresh.set()

    # Where the slots are.

    async def _keep_up_to_date(self) -> None:
        while True:
            self._must_refresh.clear()
            began_at = self._loop.time()
            try:
                known = [] if self._topology is None else self._topology.addresses()
                topology = await self._explorer.topology(known)
            except OSError as error:
                self._note_unreachable(str(error))
            except Exception as error:
                # A bug in Holdfast. Ask again anyway.
                log.exception("cluster_not_read")
                self._note_unreachable(repr(error))
            else:
                self._unreachable = ""
                self._use(topology, began_at)
            await asyncio.sleep(random.uniform(_MIN_REFRESH_SECONDS, 2 * _MIN_REFRESH_SECONDS))  # noqa: S311
            has_homeless = any(route.connection is None for route in self._routes)
            with suppress(TimeoutError):
                async with asyncio.timeout(0.1 if has_homeless else _REFRESH_SECONDS):
                    await self._must_refresh.wait()

    def _note_unreachable(self, reason: str) -> None:
        if reason != self._unreachable:
            log.warning("cluster_unreachable", reason=reason)
        self._unreachable = reason
        for route in self._routes:
            if route.connection is None:
                route.reason = reason

    def _use(self, topology: Topology, began_at: float) -> None:
        """Attach each shop to the node that has its slot. `began_at`: what a node said later is newer."""
        self._topology = topology
        for route in self._routes:
            owner = topology.owner(route.slot)
            if owner is None:
                route.reason = f"no node of the cluster has the slot {route.slot} of the shop {route.shop}"
            elif owner != route.address and route.moved_at < began_at:
                self._attach(route, owner)
        self._close_unused()

    def _attach(self, route: Route, address: Address) -> None:
        """Send the commands of a shop to this node from now on."""
        before = route.connection
        if route.address is not None and self._loop.time() - route.logged_at > _LOG_SECONDS:
            route.logged_at = self._loop.time()
            log.warning("shop_moved", shop=route.shop, slot=route.slot, node=str(address), before=str(route.address))
        route.connection, route.address, route.moved_at = self._node(address), address, self._loop.time()
        route.check.begin_anew()
        unsent = [] if before is None else before.take_unsent(route)
        if unsent:
            route.connection.send_again(unsent)
        self._send_waiting(route)

    def _node(self, address: Address) -> MultiplexedConnection:
        """Return the connection to a node. If there is none yet, begin it."""
        if address not in self._nodes:
            replicas = self._replicas
            node = self._nodes[address] = MultiplexedConnection(
                self._url,
                timeout=self._timeout,
                max_in_flight=self._max_in_flight,
                verify=self._verifier(address),
                metrics=self._metrics,
                replication=Replication(replicas, timeout=self._timeout) if replicas else None,
                node=address,
                takes_over=lambda pending, error: self._takes_over(pending, error, address),
                on_lost=self.refresh,
            )
            node.start()
        return self._nodes[address]

    def _verifier(self, address: Address) -> Callable[[Execute], Any]:
        async def verify(execute: Execute) -> None:
            """Check a node at each new connection. What is in its shops is checked by the next command of each."""
            routes = [route for route in self._routes if route.address == address]
            for route in routes:
                route.check.begin_anew()
            if not routes and self._was_asked(address):
                routes = [self._asked[address][0]]
            if routes:
                await routes[0].check.verify_engine(execute)

        return verify

    def _close_unused(self) -> None:
        """Close the connections to nodes that have no shop any more."""
        used = {route.address for route in self._routes}
        used |= {address for address in self._asked if self._was_asked(address)}
        for address in [address for address in self._nodes if address not in used]:
            node = self._nodes.pop(address)
            self._unused.add(node)
            self._tasks.start(self._close(node), "cluster-node")

    def _was_asked(self, address: Address) -> bool:
        """Return whether a node was lately sent a command for a slot that is on its way to it."""
        return address in self._asked and self._asked[address][1] > self._loop.time() - _KEEP_SECONDS

    async def _close(self, node: MultiplexedConnection) -> None:
        await asyncio.sleep(self._timeout)  # after this time, each command has its reply or has failed
        await node.close()
        self._unused.discard(node)

    # Commands that were not executed.

    def is_full(self, route: Route) -> bool:
        """Return whether as many commands of a shop, and of the others on its node, wait as may wait."""
        sent = 0 if route.connection is None else route.connection.in_flight
        return len(route.waiting) + sent >= self._max_in_flight

    def check_limit(self, route: Route) -> None:
        """Raise Overloaded if too many commands wait."""
        if self.is_full(route):
            raise Overloaded(f"{self._max_in_flight} commands wait for Redis already")

    def wait(
        self, route: Route, command: tuple[bytes | str | int, ...], *, safe_to_repeat: bool
    ) -> asyncio.Future[Any]:
        """Send a command when the node of its slot is known."""
        future = self._loop.create_future()
        times_out_at = self._loop.time() + self._timeout
        self._send_later(route, PendingCommand(pack(command), safe_to_repeat, times_out_at, future, route))
        return future

    def _takes_over(self, pending: PendingCommand, error: ErrorReply, asked: Address) -> bool:
        """Send a command again that a node has refused. Return whether that is possible."""
        route: Route | None = pending.route
        if error.code not in _SENT_AGAIN or route is None:
            return False
        pending.future = caller_of(pending.future)
        route.reason = str(error)
        if error.code == "ASK":
            # The keys of the slot are on their way to another node, and those of this command have arrived there.
            address = read_redirection(str(error), asked)
            self._asked[address] = route, self._loop.time()
            self._node(address).send_again(
                [PendingCommand(pack(("ASKING",)), True, pending.times_out_at, NobodyWaits()), pending]
            )
            return True
        # A node that sends back what was just sent to it by ASK does not expect the slot: the move is not prepared.
        is_sent_back = self._was_asked(asked) and asked != route.address
        if error.code == "MOVED" and not is_sent_back and self._follow(route, read_redirection(str(error), asked)):
            assert route.connection is not None
            route.connection.send_again([pending])
            return True
        self.refresh()
        self._send_later(route, pending)
        return True

    def _follow(self, route: Route, address: Address) -> bool:
        """Attach a shop to the node that MOVED names. Return False if that may be wrong: nodes can disagree."""
        if address == route.address:
            return True
        if self._loop.time() - route.moved_at < _MIN_REFRESH_SECONDS:
            return False
        self._attach(route, address)
        self.refresh()
        return True

    def _send_later(self, route: Route, pending: PendingCommand) -> None:
        route.waiting.append(pending)
        if not route.is_due:
            route.is_due = True
            self._loop.call_later(random.uniform(*_RESEND_SECONDS), self._resend, route)  # noqa: S311

    def _resend(self, route: Route) -> None:
        route.is_due = False
        self._send_waiting(route)
        if route.waiting:
            route.is_due = True
            self._loop.call_later(random.uniform(*_RESEND_SECONDS), self._resend, route)  # noqa: S311

    def _send_waiting(self, route: Route) -> None:
        """Send the commands that wait, if a node is known. Fail those whose timeout has passed."""
        now = self._loop.time()
        waiting = [pending for pending in route.waiting if not pending.future.done()]
        route.waiting.clear()
        for pending in waiting:
            if pending.times_out_at <= now:
                pending.future.set_exception(StorageUnavailable(route.reason))
            else:
                route.waiting.append(pending)
        if route.connection is not None and route.waiting:
            route.connection.send_again(list(route.waiting))
            route.waiting.clear()

    def _fail_all(self, route: Route, reason: str) -> None:
        for pending in route.waiting:
            if not pending.future.done():
                pending.future.set_exception(StorageUnavailable(reason))
        route.waiting.clear()
