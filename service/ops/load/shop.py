"""The API calls of a rehearsal as methods: add its products, place orders, read back what is there, withdraw."""

import asyncio
import json
import re
from typing import Any, Final, NamedTuple

from service.ops.load.client import Answer, HttpClient, NoAnswer
from service.ops.load.plan import PRICE, LoadPlan, Purchase

READ_ATTEMPTS: Final = 8
"""With the pauses between them, about 13 seconds: a service that restarts is back by then."""

_MAX_PAGES: Final = 20
"""Pages of one list. The orders of one reference are on the first; a service that is wrong may link in a circle."""

_NEXT_PAGE = re.compile(r'<[^>]*\?([^>]*)>; *rel="?next"?')


class CannotReadBack(Exception):
    """The service does not answer what the rehearsal must know. The text says which call, and what came instead."""


class SeenOrder(NamedTuple):
    """An order as the service shows it. `status`: "missing" if there is none. `total`: of all units, as shown."""

    id: int
    status: str
    units: dict[int, int]
    total: Any = None


class StockLevel(NamedTuple):
    """The units of one product, as the service shows them."""

    stock: int
    held: int
    sold: int
    received: int


def problem_name(answer: Answer) -> str:
    """Return the problem type of an answer, `insufficient-stock`, or its status if it names none."""
    kind = answer.body.get("type") if isinstance(answer.body, dict) else None
    name = kind.rpartition("/")[2] if isinstance(kind, str) else ""
    return name if re.fullmatch("[a-z0-9-]{1,40}", name) else f"status {answer.status}"


def read_order(body: Any) -> SeenOrder | None:
    """Return the order in the body of an answer, or None if it is not an order."""
    try:
        units: dict[int, int] = {}
        for line in body["products"]:
            units[int(line["product_id"])] = units.get(int(line["product_id"]), 0) + int(line["quantity"])
        return SeenOrder(int(body["id"]), str(body["status"]), units, body["total_price"])
    except (KeyError, TypeError, ValueError):
        return None


class RehearsalShop:
    """The calls to the service under test. `product_ids`: of the products of the rehearsal, once they are added."""

    def __init__(self, client: HttpClient, plan: LoadPlan, read_attempts: int = READ_ATTEMPTS) -> None:
        self._client = client
        self._read_attempts = read_attempts
        self._plan = plan
        self.product_ids: list[int] = []

    async def check_ready(self) -> None:
        """Raise CannotReadBack unless a Holdfast answers that it is ready."""
        answer = await self._send("GET", "/readyz")
        if answer.status != 200 or not isinstance(answer.body, dict) or answer.body.get("status") != "ready":
            raise CannotReadBack(f"GET /readyz was answered with {_shown(answer)}: a Holdfast that is ready says so")

    async def open_connections(self, count: int) -> None:
        """Open connections before the load begins, which would otherwise be measured with the first orders."""
        await asyncio.gather(*[self._read("/livez") for _ in range(count)])

    async def add_product(self, position: int) -> None:
        """Add the next product of the rehearsal. The service chooses the id, so it cannot be that of a real product."""
        fields = {
            "name": self._plan.product_name(position),
            "description": "Added by `holdfast load`. Nobody sells it.",
            "price": PRICE,
            "stock": self._plan.stock,
        }
        if self._plan.limit is not None:
            fields["limit_per_customer"] = self._plan.limit
        answer = await self._send("POST", "/products", json.dumps(fields))
        product_id = answer.body.get("id") if answer.status == 201 and isinstance(answer.body, dict) else None
        if not isinstance(product_id, int):
            raise CannotReadBack(f"POST /products was answered with {_shown(answer)}")
        self.product_ids.append(product_id)

    async def withdraw(self, product_id: int) -> None:
        """Withdraw a product from sale. Raise CannotReadBack if that fails."""
        answer = await self._send("DELETE", f"/products/{product_id}")
        if answer.status not in (204, 404):
            raise CannotReadBack(f"DELETE /products/{product_id} was answered with {_shown(answer)}")

    def order_body(self, purchase: Purchase) -> str:
        """Return the body of the POST of a purchase."""
        lines = [{"product_id": number, "quantity": units} for number, units in self.units_by_id(purchase).items()]
        fields: dict[str, object] = {
            "products": lines,
            "reference": self._plan.reference(purchase.number),
            "customer": self._plan.customer(purchase.buyer),
        }
        if purchase.course != "buy":
            fields |= {"status": "pending", "hold_seconds": self._plan.hold_seconds}
        return json.dumps(fields)

    def units_by_id(self, purchase: Purchase) -> dict[int, int]:
        """Return the units that a purchase wants of each product, by the ids of the products."""
        return {self.product_ids[position]: units for position, units in purchase.units.items()}

    async def place(self, purchase: Purchase, body: str) -> Answer:
        """Send an order, once. Raise NoAnswer."""
        return await self._client.send("POST", "/orders", body, key=self._plan.reference(purchase.number))

    async def complete(self, order_id: int) -> Answer:
        """Complete a pending order, once. Raise NoAnswer."""
        return await self._client.send("POST", f"/orders/{order_id}/complete")

    async def cancel(self, order_id: int) -> Answer:
        """Cancel a pending order, once. Raise NoAnswer."""
        return await self._client.send("DELETE", f"/orders/{order_id}")

    async def find_order(self, order_id: int) -> SeenOrder:
        """Return an order in any status, also if it is gone. Raise CannotReadBack."""
        path = f"/orders/{order_id}"
        answer = await self._read(path)
        if answer.status == 404:
            return SeenOrder(order_id, "missing", {})
        body = answer.body
        if answer.status == 410 and isinstance(body, dict):
            order = read_order(body.get("order"))
            if order is not None:
                status = problem_name(answer).removeprefix("order-")
                return order._replace(status=status)
        if answer.status == 200 and (order := read_order(body)) is not None:
            return order
        raise CannotReadBack(f"GET {path} was answered with {_shown(answer)}")

    async def orders_of(self, number: int) -> list[SeenOrder]:
        """Return the pending and completed orders of a purchase, found by its reference. Raise CannotReadBack."""
        path = f"/orders?reference={self._plan.reference(number)}"
        found: list[SeenOrder] = []
        for _ in range(_MAX_PAGES):
            answer = await self._read(path)
            orders = [read_order(item) for item in answer.body] if isinstance(answer.body, list) else [None]
            if answer.status != 200 or None in orders:
                raise CannotReadBack(f"GET {path} was answered with {_shown(answer)}")
            found += [order for order in orders if order is not None]
            link = _NEXT_PAGE.search(answer.link)
            if link is None:
                break
            path = f"/orders?{link[1]}"
        return found

    async def stock_level(self, product_id: int) -> StockLevel:
        """Return the units of a product. Raise CannotReadBack."""
        path = f"/products/{product_id}/stock"
        answer = await self._read(path)
        try:
            return StockLevel(*[int(answer.body[name]) for name in StockLevel._fields])
        except (KeyError, TypeError, ValueError):
            raise CannotReadBack(f"GET {path} was answered with {_shown(answer)}") from None

    async def stock_left(self) -> int | None:
        """Return the units of all products in stock, or None if the service does not say: this is for a plot only."""
        first, ids = min(self.product_ids), set(self.product_ids)
        try:
            answer = await self._client.send("GET", f"/products?limit=1000&after={first - 1}")
            stocks = [int(item["stock"]) for item in answer.body if item["id"] in ids]
        except (NoAnswer, KeyError, TypeError, ValueError):
            return None
        return sum(stocks) if len(stocks) == len(ids) else None

    async def _read(self, path: str) -> Answer:
        return await self._send("GET", path, attempts=self._read_attempts)

    async def _send(self, method: str, path: str, body: str | None = None, attempts: int = 1) -> Answer:
        """Send a request, several times if it may be repeated. Raise CannotReadBack if there is no answer at all."""
        for attempt in range(1, attempts + 1):
            try:
                answer = await self._client.send(method, path, body)
                if answer.status < 500 or attempt == attempts:
                    return answer
            except NoAnswer as error:
                if attempt == attempts:
                    raise CannotReadBack(f"{method} {path}: {error.kind}") from None
            await asyncio.sleep(min(0.1 * 2**attempt, 3))
        raise AssertionError("unreachable")


def _shown(answer: Answer) -> str:
    """Return an answer for a message."""
    name = problem_name(answer)
    if 300 <= answer.status < 400:
        return f"status {answer.status}, which leads elsewhere: no redirect is followed"
    if answer.status == 401:
        return "status 401: set HOLDFAST_API_KEY to a key of the service"
    return name if name.startswith("status") else f"status {answer.status}, {name}"
