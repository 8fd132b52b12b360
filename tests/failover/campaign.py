"""Clients order and retry while primaries fail, and what they were told is compared with what is there at the end."""

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from tests.support.cluster import Shard
from tests.support.replicas import ReplicatedEngine, ReplicatedEngines
from tests.support.waiting import eventually

PRODUCTS: Final = 20


@dataclass
class History:
    """What clients were told. `completed`: the orders that are sold."""

    fault: str = "start"
    """The last fault."""
    placed: dict[int, tuple[str, str]] = field(default_factory=dict)
    """The Idempotency-Key of each order, and the last fault when it was confirmed."""
    completed: set[int] = field(default_factory=set)
    answers: Counter[str] = field(default_factory=Counter)
    reissued: int = 0
    """Orders that got the id of another order, which was confirmed before and has been lost."""
    longest_pause: float = 0.0
    """The longest time in seconds without a confirmed order."""


class Clients:
    """Clients that order without a pause. Each repeats a request that failed, with the same key, until an answer."""

    def __init__(self, port: int, count: int = 24, seed: int = 1) -> None:
        self.history = History()
        self._url = f"http://127.0.0.1:{port}"
        self._count = count
        self._seed = seed
        self._stopping = False
        self._last_at = time.monotonic()

    async def __aenter__(self) -> "Clients":
        self._session = aiohttp.ClientSession(
            self._url, timeout=aiohttp.ClientTimeout(10), connector=aiohttp.TCPConnector(limit=0)
        )
        async with asyncio.timeout(10):
            for number in range(1, PRODUCTS + 1):
                body = {"id": number, "name": "Mug", "description": "", "price": 1, "stock": 1_000_000}
                await self._until_answered("POST", "/products", {}, body)
        self._tasks = [asyncio.create_task(self._order(random.Random(self._seed + n), n)) for n in range(self._count)]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let each client finish its order: that also waits until the service works again."""
        self._stopping = True
        await asyncio.gather(*self._tasks)
        await self._session.close()

    async def _order(self, rng: random.Random, client: int) -> None:
        number = 0
        while not self._stopping:
            number += 1
            key = f"{client}-{number}"
            pending = rng.random() < 0.1
            body = {
                "products": [
                    {"product_id": product, "quantity": 1} for product in rng.sample(range(1, PRODUCTS + 1), 2)
                ],
                "status": "pending" if pending else "completed",
            }
            status, answer = await self._until_answered("POST", "/orders", {"Idempotency-Key": key}, body)
            assert status == 201, answer
            history, order_id = self.history, int(answer["id"])
            history.reissued += order_id in history.placed
            history.placed[order_id] = (key, history.fault)
            now = time.monotonic()
            history.longest_pause, self._last_at = max(history.longest_pause, now - self._last_at), now
            if pending:
                status, _ = await self._until_answered("POST", f"/orders/{order_id}/complete", {}, None)
                if status == 200:  # otherwise the order is lost, and the end will show that
                    history.completed.add(order_id)
            else:
                history.completed.add(order_id)

    async def _until_answered(
        self, method: str, path: str, headers: dict[str, str], body: object
    ) -> tuple[int, dict[str, Any]]:
        while True:
            try:
                async with self._session.request(method, path, headers=headers, json=body) as response:
                    answer = await response.json(content_type=None)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self.history.answers[type(error).__name__] += 1
            else:
                if response.status < 500:
                    self.history.answers[str(response.status)] += 1
                    return response.status, answer
                self.history.answers[answer["type"].removeprefix("/problems/")] += 1
            await asyncio.sleep(0.05)


@dataclass(frozen=True)
class Verdict:
    """What is left of what was confirmed."""

    confirmed: int
    lost: int
    """Orders that are not there, or that are others."""
    undone: int
    """Completed orders that are not completed."""
    doubled: int
    """Idempotency-Keys with several orders."""
    lost_after: dict[str, int]
    """The lost orders by the last fault when they were confirmed."""


def compare(history: History, primary: ReplicatedEngine, shop: str) -> Verdict:
    """Compare what clients were told with the data."""
    keys: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    undone = 0
    with primary.client() as redis:
        found: dict[int, Any] = {}
        for name in redis.scan_iter(f"{{{shop}}}:order:*", count=5000):
            found[int(name.rpartition(":")[2])] = None
        ids = list(found)
        for start in range(0, len(ids), 1000):
            pipeline = redis.pipeline(transaction=False)
            for order_id in ids[start : start + 1000]:
                pipeline.hmget(f"{{{shop}}}:order:{order_id}", "idempotency_key", "status")
            found.update(zip(ids[start : start + 1000], pipeline.execute(), strict=True))
    for key, _ in found.values():
        keys[key] += 1
    for order_id, (key, fault) in history.placed.items():
        row = found.get(order_id)
        if row is None or row[0] != key:
            lost[fault] += 1
        elif order_id in history.completed and row[1] != "completed":
            undone += 1
    doubled = sum(count > 1 for count in keys.values())
    return Verdict(len(history.placed) + history.reissued, lost.total() + history.reissued, undone, doubled, dict(lost))


class Faults:
    """What happens to the primary. Each method returns when another one is the primary, and the old one its replica."""

    def __init__(self, engines: ReplicatedEngines | Shard, rest_seconds: float = 0) -> None:
        """`rest_seconds`: between the end of one failover and the next."""
        self._engines = engines
        self._rest_seconds = rest_seconds
        self._dead: list[ReplicatedEngine] = []

    async def kill(self) -> None:
        """Kill the primary, and start it again as what it was: sentinels make it a replica."""
        old = await self._primary()
        old.kill()
        await self._another(old)
        old.start()
        await self._healed()

    async def kill_for_good(self) -> None:
        """Kill the primary, and do not start it again."""
        old = await self._primary()
        old.kill()
        self._dead.append(old)
        await self._another(old)

    async def bring_back(self) -> None:
        """Start again what `kill_for_good` has killed, and wait until all others follow the primary."""
        while self._dead:
            self._dead.pop().start()
            await self._healed()

    async def freeze(self) -> None:
        """Freeze the primary, and let it go on when another has replaced it: it does not know that."""
        old = await self._primary()
        old.freeze()
        await self._another(old)
        old.unfreeze()
        await self._healed()

    async def lag(self) -> None:
        """Freeze one replica for a moment, then kill the primary while that replica still lacks orders."""
        old = await self._primary()
        replica = next(engine for engine in self._engines.engines if engine is not old)
        replica.freeze()
        await asyncio.sleep(0.3)
        old.kill()
        replica.unfreeze()
        await self._another(old)
        old.start()
        await self._healed()

    async def cut_off(self) -> None:
        """Cut the primary off from everything but the service, for a second. Then it is gone."""
        old = await self._primary()
        others = [each for each in (*self._engines.engines, *self._engines.sentinels) if each is not old]
        for other in others:
            other.freeze()
        await asyncio.sleep(1)
        old.kill()
        for other in others:
            other.unfreeze()
        await self._another(old)
        old.start()
        await self._healed()

    async def _primary(self) -> ReplicatedEngine:
        found: list[ReplicatedEngine] = []

        async def is_found() -> bool:
            primary = await asyncio.to_thread(self._engines.primary)
            if primary is not None:
                found.append(primary)
            return primary is not None

        await eventually(is_found, "a primary")
        return found[0]

    async def _another(self, old: ReplicatedEngine) -> None:
        async def is_another() -> bool:
            primary = await asyncio.to_thread(self._engines.primary)
            return primary is not None and primary is not old

        await eventually(is_another, "another primary")

    async def _healed(self) -> None:
        """Wait until there is one primary, and all others follow it."""

        async def is_healed() -> bool:
            primary = await asyncio.to_thread(self._engines.primary)
            count = len(self._engines.engines) - 1
            return primary is not None and await asyncio.to_thread(primary.replicas_follow, count)

        # Sentinels wait for 8 seconds before they make a returned primary a replica.
        async with asyncio.timeout(60):
            while not await is_healed():  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        await asyncio.sleep(self._rest_seconds)
