"""API keys: who may call what, and what is remembered of them."""

import asyncio
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import structlog
from httpx2 import AsyncClient, Response

from service.api import api_keys
from service.api.api_keys import ApiKeys
from service.api.event_feed import EventFeed
from service.api.routes import CALLS
from service.app import create_app
from service.domain.api_key import SCOPES, ApiKey, Rate, digest_of, parse_keys
from service.domain.errors.access import NotAuthenticated
from service.domain.errors.storage import Overloaded
from service.domain.times import Milliseconds
from service.settings import Settings
from service.storage.sender import CommandSender
from service.storage.store import Store
from tests.support.documented import DocumentedTransport
from tests.support.problems import assert_problem
from tests.support.redis_content import dump, nothing_changes
from tests.support.shop import SHOP, add_mugs, add_product, http_client, mug, place, with_state
from tests.support.waiting import eventually

SECRET = "hf_" + "s" * 43


def line(name: str, secret: str, scopes: str = "all", **members: str) -> str:
    further = "".join(f" {member}={value}" for member, value in members.items())
    return f"{name} sha256:{digest_of(secret.encode()).hex()} scopes={scopes}{further}"


def client_with_keys(store: Store, *lines: str) -> AsyncClient:
    app = create_app(Settings(api_keys="\n".join(lines)), store.metrics)
    return AsyncClient(transport=DocumentedTransport(with_state(store, app=app)), base_url="http://holdfast")


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


BODIES: Mapping[str, Any] = {
    "place_order": {"products": [{"product_id": 1, "quantity": 1}], "status": "pending"},
    "add_product": mug(),
    "change_product": {"name": "Cup"},
    "change_stock": {"change": 1, "reason": "found"},
    "extend_hold": {"hold_seconds": 60},
    "return_products": {"products": [{"product_id": 1, "quantity": 1}]},
}
GUARDED = [call for call in CALLS if call.scope]


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("call", GUARDED, ids=lambda call: call.handler.__name__)
async def test_a_call_needs_its_scope_and_no_other(
    store: Store, redis: CommandSender, monkeypatch: pytest.MonkeyPatch, call: Any, scope: str
) -> None:
    async def no_events(*_: object) -> Any:
        raise Overloaded("a stream has no end")

    monkeypatch.setattr(EventFeed, "open", no_events)
    await add_mugs(store)
    client = client_with_keys(store, line("shop", SECRET, scope))
    options = {"json": BODIES[call.handler.__name__]} if call.handler.__name__ in BODIES else {}
    path = call.path.replace("{id}", "1")
    if scope != call.scope:
        async with nothing_changes(redis):
            response = await client.request(call.method, path, headers=bearer(SECRET), **options)
        problem = assert_problem(response, 403, "missing-scope")
        assert problem["scope"] == call.scope
        assert f'scope="{call.scope}"' in response.headers["www-authenticate"]
    else:
        response = await client.request(call.method, path, headers=bearer(SECRET), **options)
        assert response.status_code not in (401, 403)


@pytest.mark.parametrize("call", GUARDED, ids=lambda call: call.handler.__name__)
async def test_without_a_key_nothing_is_done(store: Store, redis: CommandSender, call: Any) -> None:
    await add_mugs(store)
    client = client_with_keys(store, line("shop", SECRET))
    options = {"json": BODIES[call.handler.__name__]} if call.handler.__name__ in BODIES else {}
    async with nothing_changes(redis):
        response = await client.request(call.method, call.path.replace("{id}", "1"), **options)
    assert_problem(response, 401, "not-authenticated")


@pytest.mark.parametrize(
    ("authorization", "has_key"),
    [
        (None, False),
        ("", False),
        (f"Basic {SECRET}", False),
        (SECRET, False),
        ("Bearer ", True),
        (f"Bearer {SECRET}x", True),
        (f"Bearer {SECRET[:-1]}", True),
        (f"Bearer {digest_of(SECRET.encode()).hex()}", True),
        (f"Bearer {SECRET} {SECRET}", True),
        ("Bearer \xe9\xff", True),
    ],
)
async def test_the_answer_to_a_wrong_key_says_how_to_send_one(
    store: Store, authorization: str | None, has_key: bool
) -> None:
    client = client_with_keys(store, line("shop", SECRET))
    headers = [] if authorization is None else [(b"authorization", authorization.encode("latin-1"))]
    response = await client.get("/orders", headers=headers)
    assert_problem(response, 401, "not-authenticated")
    assert response.headers["www-authenticate"] == 'Bearer realm="holdfast"' + (
        ', error="invalid_token"' if has_key else ""
    )
    assert SECRET not in response.text


async def test_a_key_is_refused_if_it_is_given_twice(store: Store) -> None:
    client = client_with_keys(store, line("shop", SECRET))
    headers = [("Authorization", f"Bearer {SECRET}"), ("Authorization", f"Bearer {SECRET}")]
    assert_problem(await client.get("/products", headers=headers), 401, "not-authenticated")


@pytest.mark.parametrize("text", [f"bearer {SECRET}", f"BEARER {SECRET}", f"Bearer   {SECRET} "])
async def test_the_scheme_has_no_case_and_white_space_does_not_count(store: Store, text: str) -> None:
    client = client_with_keys(store, line("shop", SECRET))
    assert (await client.get("/products", headers={"Authorization": text})).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/livez", "/readyz", "/openapi.json", "/docs", "/docs/docs.js", "/problems", "/problems/not-found", "/board"],
)
async def test_public_paths_need_no_key(store: Store, path: str) -> None:
    client = client_with_keys(store, line("shop", SECRET, "catalog:read"))
    assert (await client.get(path)).status_code == 200


async def test_the_description_of_the_api_names_the_scope_of_each_call(client: AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    assert document["components"]["securitySchemes"]["api_key"]["scheme"] == "bearer"
    found = {
        (method.upper(), path): operation.get("security", [{}])[-1].get("api_key", [""])[0]
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    assert found == {(call.method, call.path): call.scope for call in CALLS}


async def test_several_keys_are_valid_at_once_and_one_ends_at_its_time(store: Store) -> None:
    now = 1_800_000_000.0
    lines = [
        line("shop", "old", expires="2027-01-15T08:00:00Z"),  # this moment
        line("shop", "new", expires="2027-01-15T08:00:00.001Z"),
        line("other", "third"),
    ]
    keys = ApiKeys(parse_keys("\n".join(lines)), clock=lambda: now)

    def name_of(secret: str) -> str:
        return keys.find(f"Bearer {secret}".encode()).key.name

    assert (name_of("new"), name_of("third")) == ("shop", "other")
    with pytest.raises(NotAuthenticated) as raised:
        name_of("old")
    assert raised.value.explanation == "The key shop has expired."


# What is remembered


async def test_the_name_of_the_key_stands_in_every_event_and_the_key_nowhere(
    store: Store, redis: CommandSender
) -> None:
    client = client_with_keys(store, line("shop-1", SECRET))
    client.headers.update(bearer(SECRET))
    body = {"products": [{"product_id": 1, "quantity": 1}]}
    with structlog.testing.capture_logs() as logs:
        await client.post("/products", json=mug())
        await client.patch("/products/1", json={"name": "Cup"})
        await client.post("/products/1/stock", json={"change": 1, "reason": "found"})
        await client.post("/orders", json=body, headers={"Idempotency-Key": "k-1"})
        for _ in range(2):
            await client.post("/orders", json={**body, "status": "pending"})
        await client.patch("/orders/2", json={"hold_seconds": 60})
        await client.post("/orders/2/complete")
        await client.delete("/orders/3")
        await client.post("/orders/1/returns", json=body)
        assert (await client.post("/orders", json={**body, "products": [{"product_id": 9, "quantity": 1}]})).is_error
        await client.delete("/products/1")
    events = await store.events.read("0")
    assert len(events) == 11
    assert [event.fields.get("by") for event in events] == ["shop-1"] * 11
    assert all(event.is_known() for event in events)
    assert [entry["key"] for entry in logs if entry["event"] == "order_refused"] == ["shop-1"]
    assert await redis.send("HGET", f"{{{SHOP}}}:order:1", "by") == "shop-1"
    assert SECRET not in json.dumps(logs, default=str)
    assert SECRET not in repr(await dump(redis))


async def test_without_keys_no_event_and_no_order_has_a_name(store: Store, redis: CommandSender) -> None:
    await add_mugs(store)
    client = AsyncClient(transport=DocumentedTransport(with_state(store)), base_url="http://holdfast")
    await client.post("/orders", json=BODIES["place_order"], headers=bearer(SECRET))
    assert all("by" not in event.fields for event in await store.events.read("0"))
    assert await redis.send("HGET", f"{{{SHOP}}}:order:1", "by") is None


@pytest.mark.parametrize("path", ["/orders", "/products/1/stock", "/orders/1/returns"])
async def test_each_key_name_has_idempotency_keys_of_its_own(store: Store, redis: CommandSender, path: str) -> None:
    await add_mugs(store)
    client = client_with_keys(store, line("one", "1"), line("two", "2"), line("one", "rotated"))
    order = {"products": [{"product_id": 1, "quantity": 1}]}
    await client.post("/orders", json={"products": [{"product_id": 1, "quantity": 5}]}, headers=bearer("1"))
    body: dict[str, Any] = {"change": 1, "reason": "found"} if path.endswith("stock") else order

    async def send(secret: str) -> Response:
        return await client.post(path, json=body, headers={**bearer(secret), "Idempotency-Key": "k"})

    first, other, again = await send("1"), await send("2"), await send("rotated")
    assert [response.is_success for response in (first, other, again)] == [True] * 3
    assert "idempotent-replayed" not in other.headers
    assert again.headers["idempotent-replayed"] == "true"
    found = sorted(await redis.send("KEYS", f"{{{SHOP}}}:idempotency*"))
    assert [str(key) for key in found] == [f"{{{SHOP}}}:idempotency@one:k", f"{{{SHOP}}}:idempotency@two:k"]


# Rates


async def test_a_key_with_a_rate_is_refused_above_it_and_each_answer_says_what_is_left() -> None:
    ticks = iter([0.0, 0.0, 0.0, 0.0, 0.5, 0.5, 100.0])
    bucket = ApiKeys([ApiKey("a", b"", frozenset(), rate=Rate(3, 3))], tick=lambda: next(ticks))
    [known] = bucket
    assert known.bucket is not None
    taken = [known.bucket.take() for _ in range(6)]
    assert [wait for _, wait in taken] == [0, 0, 0, 1, 1, 0]
    assert [dict(fields)[b"ratelimit"] for fields, _ in taken] == [
        *(b'"key";r=2;t=1', b'"key";r=1;t=2', b'"key";r=0;t=3', b'"key";r=0;t=3', b'"key";r=0;t=3', b'"key";r=2;t=1')
    ]
    assert {dict(fields)[b"ratelimit-policy"] for fields, _ in taken} == {b'"key";q=3;w=3'}


async def test_requests_above_the_rate_get_429_and_do_nothing(store: Store, redis: CommandSender) -> None:
    await add_mugs(store)
    client = client_with_keys(store, line("slow", "slow", rate="2/h"), line("fast", "fast"))
    for left in (1, 0):
        response = await client.get("/products", headers=bearer("slow"))
        assert response.status_code == 200
        assert re.fullmatch(rf'"key";r={left};t=\d+', response.headers["ratelimit"])
    async with nothing_changes(redis):
        response = await client.post("/orders", json=BODIES["place_order"], headers=bearer("slow"))
    assert_problem(response, 429, "rate-limited")
    assert 1 <= int(response.headers["retry-after"]) <= 1800
    assert response.headers["ratelimit"].startswith('"key";r=0;')
    unlimited = await client.get("/products", headers=bearer("fast"))
    assert unlimited.status_code == 200
    assert "ratelimit" not in unlimited.headers


async def test_requests_with_a_missing_scope_use_up_the_rate_and_are_logged_with_the_key_name(store: Store) -> None:
    lines = line("till", SECRET, "orders:write", rate="1/h")
    app = create_app(Settings(api_keys=lines, access_log=True), store.metrics)
    client = AsyncClient(transport=DocumentedTransport(with_state(store, app=app)), base_url="http://holdfast")
    with structlog.testing.capture_logs() as logs:
        assert_problem(await client.get("/orders", headers=bearer(SECRET)), 403, "missing-scope")
        assert_problem(await client.get("/orders", headers=bearer(SECRET)), 429, "rate-limited")
    assert [entry["key"] for entry in logs if entry["event"] == "request"] == ["till", "till"]


# The file of keys


def key_file(tmp_path: Path, *lines: str) -> tuple[ApiKeys, Path]:
    file = tmp_path / "keys"
    file.write_text("\n".join(lines))
    return ApiKeys([], file), file


def names(keys: ApiKeys) -> list[str]:
    return sorted(each.key.name for each in keys)


async def test_a_changed_file_counts_without_a_restart_and_a_wrong_one_changes_nothing(tmp_path: Path) -> None:
    keys, file = key_file(tmp_path, line("a", "1", rate="2/h"))
    [before] = keys
    file.write_text("\n".join([line("a", "1", rate="2/h"), "# a comment", "", line("b", "2")]))
    await keys.reread()
    assert names(keys) == ["a", "b"]
    assert next(iter(keys)) is before  # its rate goes on
    for wrong in ("nonsense", "a sha256:00 scopes=all", "\xff"):
        file.write_bytes(wrong.encode("latin-1"))
        with structlog.testing.capture_logs() as logs:
            await keys.reread()
            await keys.reread()
        assert [entry["event"] for entry in logs] == ["api_keys_not_read"]
        assert names(keys) == ["a", "b"]
    file.unlink()
    await keys.reread()
    assert names(keys) == ["a", "b"]
    file.write_text(line("b", "2"))
    await keys.reread()
    assert names(keys) == ["b"]


@pytest.mark.parametrize("file", ["/dev/zero", "/dev/full", "/proc"])
def test_a_key_file_that_is_not_a_regular_file_is_refused(file: str) -> None:
    with pytest.raises(ValueError, match="regular file"):
        ApiKeys([], Path(file))


def test_a_file_that_is_too_long_for_keys_is_refused(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("#" * 1024 * 1024 + "#")
    with pytest.raises(ValueError, match="more than 1,048,576 bytes"):
        ApiKeys([], tmp_path / "keys")


async def test_an_empty_file_lets_nobody_in(tmp_path: Path) -> None:
    keys, _ = key_file(tmp_path)
    with pytest.raises(NotAuthenticated):
        keys.find(b"Bearer x")


async def test_the_keys_are_read_again_regularly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_keys, "REREAD_SECONDS", 0.01)
    keys, file = key_file(tmp_path, line("a", "1"))
    task = asyncio.create_task(api_keys.reread_regularly(keys))
    file.write_text(line("b", "2"))
    await eventually(lambda: names(keys) == ["b"], "the new keys")
    task.cancel()


def test_parsing_the_line_of_a_key_returns_the_same_key() -> None:
    text = line("a.b_c-D", "1", "catalog:read,ops:read", expires="2027-01-01T00:00:00.000Z", rate="600/min")
    [key] = parse_keys(text)
    assert key.line() == text
    assert key == ApiKey(
        "a.b_c-D", digest_of(b"1"), frozenset({"catalog:read", "ops:read"}), Milliseconds(1798761600000), Rate(600, 60)
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a", "line 1: a key is NAME"),
        (f"\na {SECRET} scopes=all", "line 2: the second word of a must be sha256:"),
        (line("a b", "1"), "line 1: the second word of a must be"),
        (line("ä", "1"), "line 1: a name has"),
        (line("a" * 33, "1"), "line 1: a name has"),
        (line("a", "1", "orders"), "line 1: scopes are catalog:read"),
        (line("a", "1", ""), "line 1: scopes are catalog:read"),
        (line("a", "1", rate="5"), "line 1: a rate is"),
        (line("a", "1", rate="0/s"), "line 1: a rate is"),
        (line("a", "1", expires="tomorrow"), "line 1: expires is"),
        (line("a", "1") + " scopes=all", "line 1: a has a word"),
        (line("a", "1", role="x"), "line 1: a has a word"),
        (f"a sha256:{'0' * 64} rate=5/s", "line 1: a has no scopes="),
        (line("a", "1") + "; " + line("b", "1"), "the same key is given twice, once as a"),
    ],
)
def test_a_wrong_line_is_named_without_the_key(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)) as raised:
        parse_keys(text)
    assert SECRET not in str(raised.value)


@pytest.mark.parametrize(
    ("site", "status"), [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200), (None, 200)]
)
async def test_without_keys_a_page_of_another_site_cannot_change_anything(
    store: Store, site: str | None, status: int
) -> None:
    async with http_client(store) as client:
        order = await place(client, (await add_product(client), 1), status="pending")
        headers = {} if site is None else {"Sec-Fetch-Site": site}
        answer = await client.post(f"/orders/{order.json()['id']}/complete", headers=headers)
        assert answer.status_code == status
        if status == 403:
            assert_problem(answer, 403, "cross-site-request")
        assert (await client.get("/products/1", headers=headers)).status_code == 200
