"""The Stores that are open, by name of the shop, and how further ones are opened."""

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from service.domain.errors.storage import StorageUnavailable
from service.storage import keys
from service.storage.cluster import Cluster, Route
from service.storage.connection import MultiplexedConnection
from service.storage.engine_check import EngineCheck
from service.storage.partitioned import AnyStore
from service.storage.requirements import LAYOUT_FIELD
from service.storage.sender import ErrorReply
from service.storage.store import Store

Sender = MultiplexedConnection | Route


class OpenStores(dict[str, AnyStore]):
    """The open Stores, by name of the shop. They share the connections."""

    def __init__(
        self,
        stores: Mapping[str, AnyStore],
        connections: MultiplexedConnection | Cluster | None,
        checks: MutableMapping[str, EngineCheck],
        new_check: Callable[[str], EngineCheck],
        new_store: Callable[[Sender, str, EngineCheck], Store],
    ) -> None:
        """`connections`: None if the shops have partitions: then no further shop is opened.

        `checks`: of the open shops; each new connection runs them. That of each further shop is added."""
        super().__init__(stores)
        self._connections = connections
        self._checks = checks
        self._new_check = new_check
        self._new_store = new_store

    async def open_existing(self, shop: str) -> bool:
        """Open the Store of a shop that is not open. Return False if there is no such shop: it is not begun.

        A shop that the Redis user may not read does not exist for this service, and a key that is not a hash is none.
        Raise StorageUnavailable, Overloaded and UnsupportedRedis.
        """
        check = self._new_check(shop)
        sender = self._sender(shop, check)
        exists = False
        try:
            exists = await _ask(sender, "HGET", keys.meta(shop), LAYOUT_FIELD) is not None
        except ErrorReply as error:
            if error.code not in ("NOPERM", "WRONGTYPE"):
                raise StorageUnavailable(str(error)) from error
        finally:
            if not exists:
                self._drop(sender)
        if exists:
            if isinstance(sender, MultiplexedConnection):
                check.begin_anew()
                check.on_replica = sender.reconnect
                sender.mark_with(shop)
            self._checks[shop] = check
            self[shop] = self._new_store(sender, shop, check)
        return exists

    async def check_redis(self, shop: str) -> None:
        """Check that Redis answers and may be used, if no shop is open. Raise StorageError.

        `shop`: a name. In a cluster, the node that such a shop would be on is asked.
        """
        sender = self._sender(shop, self._new_check(shop))
        try:
            await _ask(sender, "TIME")
        except ErrorReply as error:
            raise StorageUnavailable(str(error)) from error
        finally:
            self._drop(sender)

    def _sender(self, shop: str, check: EngineCheck) -> Sender:
        connections = self._connections
        assert connections is not None, "HOLDFAST_SHOPS has no patterns if there are partitions"
        return connections.route(shop, check) if isinstance(connections, Cluster) else connections

    def _drop(self, sender: Sender) -> None:
        if isinstance(self._connections, Cluster) and isinstance(sender, Route):
            self._connections.drop(sender)


async def _ask(sender: Sender, *command: str) -> Any:
    return await sender.send(*command, safe_to_repeat=True)
