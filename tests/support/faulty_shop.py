"""A small shop over HTTP that has the API of Holdfast and one fault: to test that a rehearsal finds the fault."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

STOCK = 1000


class FaultyShop:
    """A shop in memory. `fault` is one of the names that are compared below, or an empty text: a shop without fault."""

    def __init__(self, fault: str = "") -> None:
        self.fault = fault
        self.products: dict[int, int] = {}
        """The units in stock."""
        self.received: dict[int, int] = {}
        self.withdrawn: set[int] = set()
        self.orders: dict[int, dict[str, Any]] = {}
        self.by_key: dict[str, int] = {}
        self.attempts: Counter[str] = Counter()
        """Requests with each Idempotency-Key."""
        self.leaked = 0
        """Requests that followed a redirect."""

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """Serve it on a free port, and yield its URL."""
        app = web.Application()
        app.router.add_get("/readyz", self._ready)
        app.router.add_get("/livez", self._ready)
        app.router.add_post("/products", self._add_product)
        app.router.add_get("/products/{id}/stock", self._stock)
        app.router.add_delete("/products/{id}", self._withdraw)
        app.router.add_post("/orders", self._place)
        app.router.add_get("/orders", self._list)
        app.router.add_get("/orders/{id}", self._get)
        app.router.add_post("/orders/{id}/complete", self._complete)
        app.router.add_delete("/orders/{id}", self._cancel)
        app.router.add_route("*", "/elsewhere", self._elsewhere)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    async def _ready(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ready"})

    async def _elsewhere(self, request: web.Request) -> web.Response:
        self.leaked += 1
        return web.json_response({})

    async def _add_product(self, request: web.Request) -> web.Response:
        body = await request.json()
        product_id = len(self.products) + 1
        self.products[product_id] = self.received[product_id] = body["stock"]
        return web.json_response({"id": product_id, **body}, status=201)

    async def _stock(self, request: web.Request) -> web.Response:
        if self.fault == "stock cannot be read":
            return _problem(500, "internal-error")
        product_id = int(request.match_info["id"])
        held, sold = (self._units(product_id, status) for status in ("pending", "completed"))
        stock = self.products[product_id]
        if self.fault == "hides that it oversells":
            stock, sold = max(stock, 0), min(sold, self.received[product_id])
        received = stock + held + sold
        level = {"stock": stock, "held": held, "sold": sold, "received": received, "written_off": 0}
        return web.json_response({"product_id": product_id, **level})

    def _units(self, product_id: int, status: str) -> int:
        lines = [line for order in self.orders.values() if order["status"] == status for line in order["products"]]
        return sum(line["quantity"] for line in lines if line["product_id"] == product_id)

    async def _withdraw(self, request: web.Request) -> web.Response:
        self.withdrawn.add(int(request.match_info["id"]))
        return web.Response(status=204)

    async def _place(self, request: web.Request) -> web.StreamResponse:
        body, key = await request.json(), request.headers["Idempotency-Key"]
        self.attempts[key] += 1
        match self.fault, self.attempts[key]:
            case "redirects", _:
                return web.Response(status=307, headers={"Location": "/elsewhere"})
            case "is overloaded at first", 1:
                return _problem(503, "overloaded", {"Retry-After": "0"})
            case "answers 500", _:
                return _problem(500, "internal-error")
            case "is slow", _:
                await asyncio.sleep(3)
        if key in self.by_key and self.fault != "ignores keys":
            order = self.orders[self.by_key[key]]
            return web.json_response(order, status=201, headers={"Idempotent-Replayed": "true"})
        if not self.fault.endswith("oversells") and any(
            self.products[line["product_id"]] < line["quantity"] for line in body["products"]
        ):
            return _problem(409, "insufficient-stock")
        order = self._write(body)
        self.by_key[key] = order["id"]
        match self.fault, self.attempts[key]:
            case "loses orders", _:
                del self.orders[order["id"]]
            case "places orders twice", _:
                self._write(body)
            case "changes orders", _:
                self.orders[order["id"]] = {**order, "products": order["products"] * 2}
            case "refuses what it places", _:
                return _problem(409, "insufficient-stock")
            case "hangs up at first", 1:
                assert request.transport is not None
                request.transport.abort()
            case "answers 500 after it has placed", _:
                return _problem(500, "internal-error")
        return web.json_response(order, status=201)

    def _write(self, body: dict[str, Any]) -> dict[str, Any]:
        for line in body["products"]:
            self.products[line["product_id"]] -= line["quantity"]
        order_id = max(self.orders, default=0) + 1
        total = sum(line["quantity"] for line in body["products"]) * 20
        order = {"status": "completed", **body, "id": order_id, "total_price": total}
        self.orders[order_id] = order
        return order

    async def _list(self, request: web.Request) -> web.Response:
        """Return one order per page, so that a rehearsal must follow the links."""
        if self.fault == "shows no orders":
            return _problem(404, "not-found")
        before, reference = int(request.query.get("before", 10**9)), request.query["reference"]
        found = [
            order
            for order in sorted(self.orders.values(), key=lambda order: -order["id"])
            if order["reference"] == reference and order["id"] < before and order["status"] in ("pending", "completed")
        ]
        headers = {}
        if found[1:]:
            headers["Link"] = f'</orders?reference={reference}&before={found[0]["id"]}>; rel="next"'
        return web.json_response(found[:1], headers=headers)

    async def _get(self, request: web.Request) -> web.Response:
        order = self.orders.get(int(request.match_info["id"]))
        if order is None:
            return _problem(404, "order-not-found")
        if order["status"] == "cancelled":
            return web.json_response({"type": "/problems/order-cancelled", "order": order}, status=410)
        return web.json_response(order)

    async def _complete(self, request: web.Request) -> web.Response:
        order = self.orders[int(request.match_info["id"])]
        order["status"] = "completed"
        return web.json_response(order)

    async def _cancel(self, request: web.Request) -> web.Response:
        order = self.orders[int(request.match_info["id"])]
        order["status"] = "completed" if self.fault == "does not cancel" else "cancelled"
        for line in order["products"]:
            if self.fault != "keeps cancelled units":
                self.products[line["product_id"]] += line["quantity"]
        return web.Response(status=204)


def _problem(status: int, name: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"type": f"/problems/{name}"}, status=status, headers=headers)
