"""Clients that order, complete, cancel, extend, return, move stock and change prices, until they know each outcome."""

import asyncio
import random
from collections import deque
from typing import Any, Final

import aiohttp

from tests.faults.history import NOT_DONE, Attempt, History, Operation

PRODUCTS: Final = range(1, 9)
LIMITS: Final = {1: 4, 2: 4}
"""Products with a limit per customer."""
CUSTOMERS: Final = 40
FIRST_STOCK: Final = 60

_WEIGHTS: Final = {
    "place": 40,
    "complete": 10,
    "cancel": 7,
    "extend": 5,
    "give_back": 9,
    "move": 9,
    "price": 3,
    "repeat": 7,
    "reuse": 3,
    "read": 7,
}
_PATIENCE_SECONDS: Final = 3.0
_THINK_SECONDS: Final = 0.02
"""Between two operations of a client, at most: otherwise clients and service only wait for the processor."""
_RECENT: Final = 60


class Clients:
    """Clients of one service, as many as `count`. What they do is drawn from the seed; when, is up to the service.

    A request with an Idempotency-Key, or one that is safe to repeat, is repeated until its outcome is known. Any other
    is repeated only if each answer promised that nothing was done.
    """

    def __init__(self, port: int, history: History, *, seed: int, count: int = 12) -> None:
        self.history = history
        self.placed: list[int] = []
        """The ids of the orders that were confirmed, in the sequence of the answers."""
        self._url = f"http://127.0.0.1:{port}"
        self._seed = seed
        self._count = count
        self._is_stopping = False
        self._may_repeat = True
        self._pending: deque[int] = deque(maxlen=_RECENT)
        self._completed: deque[int] = deque(maxlen=_RECENT)
        self._lines: dict[int, Any] = {}
        self._with_key: deque[Operation] = deque(maxlen=_RECENT)

    async def __aenter__(self) -> "Clients":
        self._session = aiohttp.ClientSession(self._url, connector=aiohttp.TCPConnector(limit=0))
        for product in PRODUCTS:
            limit = {"limit_per_customer": LIMITS[product]} if product in LIMITS else {}
            body = {"id": product, "name": "Mug", "description": "", "price": 1, "stock": FIRST_STOCK, **limit}
            async with self._session.post("/products", json=body) as response:
                assert response.status == 201, await response.text()
        self._tasks = [asyncio.create_task(self._client(number)) for number in range(self._count)]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let each client finish its operation. After ten seconds, outcomes that are not known stay unknown."""
        self._is_stopping = True
        await asyncio.wait(self._tasks, timeout=10)
        self._may_repeat = False
        await asyncio.gather(*self._tasks)
        await self._session.close()

    async def _client(self, client: int) -> None:
        rng = random.Random(f"{self._seed} {client}")
        while not self._is_stopping:
            [kind] = rng.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
            await getattr(self, f"_{kind}")(client, rng)
            await asyncio.sleep(rng.uniform(0, _THINK_SECONDS))

    async def _place(self, client: int, rng: random.Random) -> None:
        products = rng.sample(PRODUCTS, rng.randint(1, 3))
        body: dict[str, Any] = {
            "products": [{"product_id": product, "quantity": rng.randint(1, 3)} for product in products],
            "reference": f"op-{self.history.next_number}",
        }
        if rng.random() < 0.85:
            # In the course of time others, so that not all have reached their limits.
            body["customer"] = f"c{rng.randrange(CUSTOMERS) + self.history.next_number // 50}"
        if rng.random() < 0.45:
            body |= {"status": "pending", "hold_seconds": rng.choice((1, 2, 900))}
        if rng.random() < 0.05:
            body["total_price"] = 1
        operation = await self._run(client, rng, "place", "POST", "/orders", body=body, key=self._key(rng, 0.75))
        if operation.done:
            pool = self._pending if "status" in body else self._completed
            order = operation.done.answer
            self.placed.append(order["id"])
            pool.append(order["id"])
            self._lines[order["id"]] = order["products"]
        if operation.key and operation.outcome in ("done", "refused"):
            self._with_key.append(operation)

    async def _complete(self, client: int, rng: random.Random) -> None:
        if self._pending:
            order_id = rng.choice(self._pending)
            operation = await self._run(client, rng, "complete", "POST", f"/orders/{order_id}/complete")
            if operation.done:
                self._completed.append(order_id)

    async def _cancel(self, client: int, rng: random.Random) -> None:
        # Also orders that are completed: they must stay so.
        if pool := (self._pending if rng.random() < 0.8 else self._completed):
            await self._run(client, rng, "cancel", "DELETE", f"/orders/{rng.choice(pool)}")

    async def _extend(self, client: int, rng: random.Random) -> None:
        if self._pending:
            body = {"hold_seconds": rng.choice((1, 2, 3))}
            await self._run(client, rng, "extend", "PATCH", f"/orders/{rng.choice(self._pending)}", body=body)

    async def _give_back(self, client: int, rng: random.Random) -> None:
        if not self._completed:
            return
        order_id = rng.choice(self._completed)
        line = rng.choice(self._lines[order_id])
        body = {
            "products": [{"product_id": line["product_id"], "quantity": rng.randint(1, line["quantity"])}],
            "restock": rng.random() < 0.7,
            "reason": f"op-{self.history.next_number}",
        }
        path = f"/orders/{order_id}/returns"
        await self._run(client, rng, "give_back", "POST", path, body=body, key=self._key(rng, 0.8))

    async def _move(self, client: int, rng: random.Random) -> None:
        change = rng.randint(10, 30) if rng.random() < 0.6 else -rng.randint(1, 20)  # a little less than is sold
        body = {"change": change, "reason": f"op-{self.history.next_number}"}
        path = f"/products/{rng.choice(PRODUCTS)}/stock"
        await self._run(client, rng, "move", "POST", path, body=body, key=self._key(rng, 0.8))

    async def _price(self, client: int, rng: random.Random) -> None:
        body = {"price": (100 + self.history.next_number) / 100}  # each price only once
        await self._run(client, rng, "price", "PATCH", f"/products/{rng.choice(PRODUCTS)}", body=body)

    async def _repeat(self, client: int, rng: random.Random) -> None:
        """Send an earlier request with its key again: it must have the same result."""
        if self._with_key:
            first = rng.choice(self._with_key)
            await self._run(client, rng, "repeat", "POST", "/orders", body=first.body, key=first.key, of=first.number)

    async def _reuse(self, client: int, rng: random.Random) -> None:
        """Send another request with the key of an earlier one: it must be refused."""
        if self._with_key:
            first = rng.choice(self._with_key)
            body = {**first.body, "reference": f"op-{self.history.next_number}"}
            await self._run(client, rng, "reuse", "POST", "/orders", body=body, key=first.key, of=first.number)

    async def _read(self, client: int, rng: random.Random) -> None:
        if pool := rng.choice((self._pending, self._completed)):
            await self._run(client, rng, "read", "GET", f"/orders/{rng.choice(pool)}")

    def _key(self, rng: random.Random, share: float) -> str | None:
        return f"key-{self.history.next_number}" if rng.random() < share else None

    async def _run(
        self, client: int, rng: random.Random, kind: str, method: str, path: str, **fields: Any
    ) -> Operation:
        operation = self.history.begin(client, kind, method, path, **fields)
        is_safe = operation.key is not None or kind not in ("place", "give_back", "move")
        while True:
            # A few clients do not wait for the answer: the service must finish or drop the request.
            attempt = await self._attempt(operation, 0.005 if rng.random() < 0.01 else _PATIENCE_SECONDS)
            if attempt.is_known or not (is_safe or attempt.problem in NOT_DONE):
                break
            if not self._may_repeat:
                break
            await asyncio.sleep(0.05)
        return operation

    async def _attempt(self, operation: Operation, patience: float) -> Attempt:
        attempt = self.history.send(operation)
        headers = {} if operation.key is None else {"Idempotency-Key": operation.key}
        try:
            async with self._session.request(
                operation.method,
                operation.path,
                json=operation.body,
                headers=headers,
                timeout=aiohttp.ClientTimeout(patience),
            ) as response:
                text = await response.text()
                answer = await response.json(content_type=None) if text else None
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.history.answer(operation, attempt, None, type(error).__name__)
        else:
            self.history.answer(operation, attempt, response.status, answer)
        return attempt
