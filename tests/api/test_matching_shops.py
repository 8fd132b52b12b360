"""Patterns in HOLDFAST_SHOPS: a shop that exists and fits is opened with the first request for it."""

import asyncio
from typing import Any

from structlog.testing import capture_logs

from service.api.api_keys import ApiKeys
from service.api.matching_shops import ABSENT_SECONDS, MAX_ABSENT, MatchingShops
from service.domain.errors.storage import Overloaded, StorageUnavailable
from service.settings import Settings
from service.storage import keys
from service.storage.opening import open_store
from service.storage.requirements import LAYOUT_FIELD, SCHEMA_VERSION
from tests.api.test_shops import key_line, serving
from tests.support.engines import TestConnection
from tests.support.shop import mug
from tests.support.waiting import eventually

FAIR = "/shops/fair-may"
PATTERN: dict[str, Any] = {"shops": ("berlin", "fair-*")}


async def begin(engine: TestConnection, shop: str) -> None:
    """Begin a shop, as the first command on it does."""
    await engine.send("HSET", keys.meta(shop), LAYOUT_FIELD, SCHEMA_VERSION)


async def lookups(engine: TestConnection) -> int:
    """Return how often Redis was asked for one field of a hash."""
    stats: str = await engine.send("INFO", "commandstats")
    line = next((line for line in stats.splitlines() if line.startswith("cmdstat_hget:")), "calls=0,")
    return int(line.partition("calls=")[2].partition(",")[0])


async def test_a_shop_that_exists_and_fits_is_served_from_the_first_request_on(
    engine: TestConnection, engine_url: str
) -> None:
    await begin(engine, "fair-may")
    async with serving(engine_url, **PATTERN) as client:
        with capture_logs() as logs:
            assert (await client.post(f"{FAIR}/products", json=mug(id=1, stock=5))).status_code == 201
            body = {"products": [{"product_id": 1, "quantity": 2}]}
            placed = await client.post(f"{FAIR}/orders", json=body, headers={"Idempotency-Key": "k"})
        assert (placed.status_code, placed.headers["location"]) == (201, f"{FAIR}/orders/1")
        assert [entry["shop"] for entry in logs if entry["event"] == "shop_opened"] == ["fair-may"]
        assert await engine.send("HGET", keys.product("fair-may", 1), "stock") == "3"
        assert (await client.get(f"{FAIR}/readyz")).json() == {"status": "ready"}
        assert (await client.get("/readyz")).json()["shops"] == {"berlin": "ready", "fair-may": "ready"}


async def test_a_shop_that_does_not_exist_is_not_found_and_not_begun(engine: TestConnection, engine_url: str) -> None:
    await begin(engine, "rome")
    await begin(engine, "fairy")
    async with serving(engine_url, **PATTERN) as client:
        for path in (f"{FAIR}/orders/1", "/shops/rome/orders/1", "/shops/fairy/orders/1", f"{FAIR}/metrics"):
            response = await client.get(path)
            assert (response.status_code, response.json()["type"]) == (404, "/problems/shop-not-found")
        assert await engine.send("EXISTS", keys.meta("fair-may")) == 0


async def test_redis_is_asked_once_for_an_absent_shop_and_once_for_simultaneous_requests(
    engine: TestConnection, engine_url: str
) -> None:
    async with serving(engine_url, shops=("fair-*",)) as client:
        before = await lookups(engine)
        responses = await asyncio.gather(*[client.get(f"{FAIR}/orders/1") for _ in range(20)])
        assert {response.status_code for response in responses} == {404}
        assert await lookups(engine) == before + 1


async def test_a_shop_that_is_begun_later_is_found(engine: TestConnection, engine_url: str) -> None:
    async with serving(engine_url, shops=("fair-*",)) as client:
        assert (await client.get(f"{FAIR}/products")).status_code == 404
        await begin(engine, "fair-may")

        async def is_found() -> bool:
            return (await client.get(f"{FAIR}/products")).status_code == 200

        await eventually(is_found, "the shop")


async def test_simultaneous_first_requests_open_a_shop_once(engine: TestConnection, engine_url: str) -> None:
    await begin(engine, "fair-may")
    async with serving(engine_url, shops=("*",)) as client:
        with capture_logs() as logs:
            responses = await asyncio.gather(*[client.get(f"{FAIR}/products") for _ in range(20)])
        assert {response.status_code for response in responses} == {200}
        assert len([entry for entry in logs if entry["event"] == "shop_opened"]) == 1


async def test_many_shops_are_opened_at_the_same_time(engine: TestConnection, engine_url: str) -> None:
    names = [f"fair-{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]
    for name in names:
        await begin(engine, name)
    async with serving(engine_url, shops=("*",)) as client:
        responses = await asyncio.gather(*[client.get(f"/shops/{name}/orders") for name in names])
        assert {response.status_code for response in responses} == {200}
        assert set((await client.get("/readyz")).json()["shops"]) == set(names)


async def test_a_page_without_a_key_opens_a_shop_and_no_other_key_is_no_shop(
    engine: TestConnection, engine_url: str
) -> None:
    await begin(engine, "fair-may")
    await engine.send("SET", keys.meta("fair-june"), "text")
    async with serving(engine_url, shops=("fair-*",), api_keys=key_line("all", None)) as client:
        assert (await client.get(f"{FAIR}/board")).status_code == 200
        assert (await client.get("/shops/fair-june/board")).status_code == 404


async def test_the_description_of_the_api_names_the_pattern_and_no_shop_that_is_open(
    engine: TestConnection, engine_url: str
) -> None:
    await begin(engine, "fair-may")
    async with serving(engine_url, **PATTERN) as client:
        assert (await client.get(f"{FAIR}/products")).status_code == 200
        first, second = (await client.get("/openapi.json")).json()["servers"]
    assert first == {"url": "/shops/berlin"}
    assert (second["url"], second["variables"]["shop"]["default"]) == ("/shops/{shop}", "fair-*")


async def test_a_shop_that_may_only_be_read_does_not_stop_the_others_after_a_new_connection(
    engine: TestConnection, engine_url: str
) -> None:
    for shop in ("fair-may", "fair-june"):
        await begin(engine, shop)
    rights = ("on", ">secret", "%R~{fair-may}:*", "~{fair-june}:*", "+@all")
    await engine.send("ACL", "SETUSER", "fairs", "reset", *rights)
    url = f"unix://fairs@{engine_url.removeprefix('unix://')}?password=secret"
    try:
        async with serving(url, shops=("*",)) as client:
            for shop in ("fair-may", "fair-june"):
                await client.get(f"/shops/{shop}/products")
            await engine.send("CLIENT", "KILL", "USER", "fairs")

            async def is_refused() -> bool:
                return (await client.get(f"{FAIR}/readyz")).status_code == 503

            await eventually(is_refused, "the new connection")
            assert (await client.get("/shops/fair-june/products")).status_code == 200
    finally:
        await engine.send("ACL", "DELUSER", "fairs")


async def test_without_an_open_shop_the_service_is_ready_if_redis_answers(
    engine: TestConnection, engine_url: str
) -> None:
    await begin(engine, "fair-may")
    async with serving(engine_url, shops=("*",)) as client:
        assert (await client.get("/readyz")).json() == {"status": "ready", "shops": {}}
        assert "holdfast_ready{" not in (await client.get("/metrics")).text
        assert (await client.get("/openapi.json")).status_code == 200
        await client.get(f"{FAIR}/products")
        assert (await client.get("/readyz")).json() == {"status": "ready", "shops": {"fair-may": "ready"}}
        assert 'holdfast_ready{shop="fair-may"} 1.0' in (await client.get("/metrics")).text
    async with serving("redis://127.0.0.1:1", shops=("*",), redis_timeout=0.2) as client:
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get(f"{FAIR}/products")).status_code == 503


async def test_holds_of_a_matching_shop_expire_after_its_first_request(engine: TestConnection, engine_url: str) -> None:
    settings = Settings(redis_url=engine_url, durability="none", shop="fair-may")
    async with open_store(settings) as store:
        await store.check()
    async with serving(engine_url, **PATTERN) as client:
        await client.post(f"{FAIR}/products", json=mug(id=1, stock=5))
        body = {"products": [{"product_id": 1, "quantity": 2}], "status": "pending", "hold_seconds": 1}
        assert (await client.post(f"{FAIR}/orders", json=body)).status_code == 201
    async with serving(engine_url, **PATTERN) as client:  # a restart

        async def is_released() -> bool:
            return bool((await client.get(f"{FAIR}/products/1")).json()["stock"] == 5)

        await eventually(is_released, "the units of the expired order")


async def test_a_key_that_is_not_for_the_shop_is_refused_before_redis_is_asked(
    engine: TestConnection, engine_url: str
) -> None:
    await begin(engine, "fair-may")
    lines = ";".join([key_line("all", None), key_line("one", frozenset({"berlin"}))])
    async with serving(engine_url, api_keys=lines, shops=("fair-*",)) as client:
        before = await lookups(engine)
        for authorization, status in ({"Authorization": "Bearer one"}, 403), ({}, 401):
            for path in (f"{FAIR}/orders/1", "/shops/fair-june/orders/1"):
                assert (await client.get(path, headers=authorization)).status_code == status
        assert await lookups(engine) == before
        headers = {"Authorization": "Bearer all"}
        assert (await client.get(f"{FAIR}/products", headers=headers)).status_code == 200
        assert (await client.get(f"{FAIR}/products", headers={"Authorization": "Bearer one"})).status_code == 403


class Lookups:
    """A service without shops that counts the questions whether a shop exists, and can hold back the answers."""

    def __init__(self, keys: ApiKeys | None = None) -> None:
        self.now = 0.0
        self.asked: list[str] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.error: Exception | None = None
        self._app = MatchingShops(self._nothing, lambda _: True, keys, lambda: self.now)

    async def _nothing(self, *_: object) -> None:
        pass

    async def _open_shop(self, shop: str) -> bool:
        self.asked.append(shop)
        await self.may_answer.wait()
        if self.error is not None:
            raise self.error
        return False

    async def get(self, shop: str) -> str:
        """Return how a request for an absent shop ends."""
        state = {"shops": {}, "open_shop": self._open_shop}
        scope = {"type": "http", "root_path": "", "path": f"/shops/{shop}/orders", "state": state}
        try:
            await self._app(scope, None, None)  # type: ignore[arg-type]
        except (Overloaded, StorageUnavailable) as error:
            return type(error).__name__
        return "passed on"


async def test_random_names_are_remembered_and_asked_for_up_to_a_number_a_second() -> None:
    service = Lookups()
    for round_number in range(3):
        ends = [await service.get(f"name{round_number}-{number}") for number in range(2 * MAX_ABSENT)]
        assert ends == ["passed on"] * MAX_ABSENT + ["Overloaded"] * MAX_ABSENT
        assert len(service.asked) == (round_number + 1) * MAX_ABSENT
        assert await service.get(f"name{round_number}-0") == "passed on"  # it is known to be absent
        service.now += ABSENT_SECONDS


async def test_an_absent_shop_is_asked_for_again_after_a_second() -> None:
    service = Lookups()
    for pause in (0.0, ABSENT_SECONDS * 0.9, ABSENT_SECONDS * 0.2):
        service.now += pause
        await service.get("rome")
    assert service.asked == ["rome", "rome"]


async def test_a_cancelled_request_does_not_end_the_lookup_for_others() -> None:
    service = Lookups()
    service.may_answer.clear()
    first, same = (asyncio.create_task(service.get("rome")) for _ in range(2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    service.may_answer.set()
    assert await same == "passed on"
    assert service.asked == ["rome"]


async def test_a_lookup_that_failed_is_repeated_with_the_next_request() -> None:
    service = Lookups()
    service.error = StorageUnavailable("away")
    assert [await service.get("rome"), await service.get("rome")] == ["StorageUnavailable"] * 2
    assert service.asked == ["rome", "rome"]
