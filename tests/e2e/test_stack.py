"""The API and its Redis, as started by `docker compose up`: their functions and their permissions."""

import json
import time
from hashlib import sha256

import pytest

from tests.e2e.stack import IMAGE, PROJECT, ROOT, Stack, add_product, docker, measurements

COMPOSE_FILES = ["docker-compose.yml"]
UP: list[str] = []

PROCESSES = """
import json, pathlib
rows = [dict(line.split(":\\t", 1) for line in path.read_text().splitlines() if ":\\t" in line)
        for path in pathlib.Path("/proc").glob("[0-9]*/status")]
print(json.dumps([[row["Name"], *row["Uid"].split(), row["CapEff"], row["CapBnd"], row["NoNewPrivs"]] for row in rows]))
"""


async def test_the_stack_is_ready_within_30_seconds_and_healthy(stack: Stack) -> None:
    stack.down("-v")
    seconds = stack.up()
    measurements.append(f"clean start: ready {seconds:.1f} s after `up`")
    assert seconds < 30
    stack.compose("up", "-d", "--wait", "--wait-timeout", "30")
    assert stack.inspect("api")["State"]["Health"]["Status"] == "healthy"
    assert stack.inspect("redis")["State"]["Health"]["Status"] == "healthy"


async def test_added_products_and_placed_orders_can_be_read(stack: Stack) -> None:
    async with stack.client() as client:
        mugs, pots = await add_product(client, 10), await add_product(client, 3)
        lines = [{"product_id": mugs, "quantity": 2}, {"product_id": pots, "quantity": 1}]
        placed = await client.post("/orders", json={"products": lines}, headers={"Idempotency-Key": "cart-1"})
        assert placed.status_code == 201, placed.text
        assert (await client.get(placed.headers["location"])).json() == placed.json()
        assert placed.json()["products"] == [{**line, "price": 19.99} for line in lines]
        assert (await client.get(f"/products/{mugs}")).json()["stock"] == 8
        short = await client.post("/orders", json={"products": [{"product_id": pots, "quantity": 3}]})
        assert short.status_code == 409
        assert {product["id"] for product in (await client.get("/products")).json()} >= {mugs, pots}
        assert placed.json() in (await client.get("/orders")).json()


async def test_the_user_of_the_api_has_all_needed_permissions(stack: Stack) -> None:
    """Use all calls and all commands. A missing permission causes a response of 500."""
    async with stack.client() as client:
        mugs = await add_product(client, 10)
        pending = {"products": [{"product_id": mugs, "quantity": 1}], "status": "pending"}
        first, second = [(await client.post("/orders", json=pending)).json()["id"] for _ in range(2)]
        third = (await client.post("/orders", json={**pending, "hold_seconds": 1})).json()["id"]
        answers = [
            await client.get("/orders?status=pending"),
            await client.get("/orders?status=completed"),
            await client.post(f"/orders/{first}/complete"),
            await client.delete(f"/orders/{second}"),
            await client.patch(f"/products/{mugs}", json={"price": 18}),
            await client.post(f"/products/{mugs}/stock", json={"change": 5, "reason": "delivery"}),
            await client.get("/products?in_stock=true"),
            await client.get("/products?in_stock=false"),
        ]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 204, 200, 200, 200, 200]
        # The last hold expires, and its unit is released: 10 + 5 - 1 sold.
        deadline = time.monotonic() + 10
        while (stock := (await client.get(f"/products/{mugs}")).json()["stock"]) != 14:
            assert time.monotonic() < deadline, stock
        assert (await client.get(f"/orders/{third}")).status_code == 410
        refused = {**pending, "products": [{"product_id": mugs, "quantity": 99}]}
        for _ in range(2):  # the first call stores the refusal, and the second call reads it
            response = await client.post("/orders", json=refused, headers={"Idempotency-Key": "too-many"})
            assert response.status_code == 409, response.text
        assert (await client.delete(f"/products/{mugs}")).status_code == 204
    events = [json.loads(line)["event"] for line in stack.in_api("holdfast", "events").splitlines()]
    assert {"order_placed", "order_completed", "order_cancelled", "order_expired", "stock_moved"} <= set(events)
    orders = [json.loads(line)["id"] for line in stack.in_api("holdfast", "export", "orders").splitlines()]
    assert first in orders
    assert not [line for line in stack.logs_of_api() if line["level"] in ("warning", "error")]


async def test_the_audit_inside_the_container_has_no_findings(stack: Stack) -> None:
    async with stack.client() as client:
        mugs = await add_product(client, 10)
        before = stack.audit()["orders"]
        await client.post("/orders", json={"products": [{"product_id": mugs, "quantity": 1}]})
        assert stack.audit()["orders"] == before + 1
        assert "Stock numbers and orders agree." in stack.in_api("holdfast", "audit")


async def test_the_audit_inside_the_container_reports_a_missing_unit(stack: Stack) -> None:
    async with stack.client() as client:
        mugs = await add_product(client, 10)
    stack.redis("HINCRBY", f"{{shop}}:product:{mugs}", "stock", "-1")
    found = stack.compose("exec", "-T", "api", "holdfast", "audit", check=False)
    stack.redis("HINCRBY", f"{{shop}}:product:{mugs}", "stock", "1")
    assert f"{{shop}}:product:{mugs} has received 10, but stock 9" in found
    stack.audit()


async def test_the_api_logs_json_lines(stack: Stack) -> None:
    assert "Application startup complete." in [line["message"] for line in stack.logs_of_api()]


async def test_the_api_runs_as_a_fixed_user_without_any_capability(stack: Stack) -> None:
    rows = json.loads(stack.in_api("python", "-c", PROCESSES))
    assert len(rows) >= 3, rows  # init, the API, and the process that runs PROCESSES
    for name, *uids, effective, bounding, no_new_privileges in rows:
        assert uids == ["10001"] * 4, name
        assert (int(effective, 16), int(bounding, 16), no_new_privileges) == (0, 0, "1"), name


async def test_redis_runs_as_its_own_user_without_any_capability(stack: Stack) -> None:
    status = stack.compose("exec", "-T", "redis", "cat", "/proc/1/status")
    row = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert row["Name"] == "redis-server"
    assert row["Uid"].split() == ["999"] * 4
    assert int(row["CapEff"], 16) == int(row["CapBnd"], 16) == 0


@pytest.mark.parametrize("path", ["/app/x", "/app/.venv/x", "/x", "/home/x"])
async def test_the_api_cannot_write_to_its_file_system(stack: Stack, path: str) -> None:
    assert "Read-only file system" in stack.compose("exec", "-T", "api", "touch", path, check=False)


async def test_the_api_can_write_temporary_files(stack: Stack) -> None:
    assert stack.in_api("sh", "-c", "echo there >/tmp/x && cat /tmp/x && rm /tmp/x") == "there\n"


async def test_only_the_api_is_published_and_only_on_this_machine(stack: Stack) -> None:
    port = stack.environment["HOLDFAST_PORT"]
    assert stack.inspect("api")["HostConfig"]["PortBindings"] == {
        "8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": port}]
    }
    redis = stack.inspect("redis")
    assert not redis["HostConfig"]["PortBindings"]
    assert [bindings for bindings in redis["NetworkSettings"]["Ports"].values() if bindings] == []
    [network] = redis["NetworkSettings"]["Networks"]
    assert json.loads(docker("network", "inspect", network))[0]["Internal"]


@pytest.mark.parametrize(
    "command",
    [
        "FLUSHALL",
        "FLUSHDB",
        "CONFIG SET appendonly no",
        "CONFIG REWRITE",
        "KEYS *",
        "SHUTDOWN NOSAVE",
        "ACL LIST",
        "REPLICAOF 127.0.0.1 1",
        "DEL {shop}:meta",
        "SCRIPT FLUSH",
        "GET elsewhere",
        "HSET elsewhere field value",
        "GET {shop2}:meta",
        "HGET shop:meta layout",
    ],
)
async def test_the_user_of_the_api_cannot_run_a_dangerous_command(stack: Stack, command: str) -> None:
    assert "NOPERM" in stack.redis_as_api(*command.split())


@pytest.mark.parametrize("inner", ["'FLUSHALL'", "'GET', 'elsewhere'", "'CONFIG', 'SET', 'appendonly', 'no'"])
async def test_a_script_has_the_permissions_of_the_user_of_the_api(stack: Stack, inner: str) -> None:
    answer = stack.redis_as_api("EVAL", f"return redis.call({inner})", "0")
    assert "ERR ACL failure" in answer or "NOPERM" in answer or "not allowed from script" in answer, answer


async def test_the_user_of_the_api_can_read_the_shop_but_no_password(stack: Stack) -> None:
    assert stack.redis_as_api("HGET", "{shop}:meta", "layout") == "2"
    settings = stack.redis_as_api("CONFIG", "GET", "*")
    assert "appendfsync" in settings
    assert not [password for password in stack.passwords() if password in settings]


async def test_redis_refuses_clients_without_a_password(stack: Stack) -> None:
    bare = ("exec", "-T", "redis", "redis-cli")
    assert "NOAUTH" in stack.compose(*bare, "PING", check=False)
    assert "WRONGPASS" in stack.compose(*bare, "-a", "wrong", "PING", check=False)
    assert stack.redis("PING") == "PONG"


async def test_the_passwords_are_random_and_docker_shows_them_nowhere(stack: Stack) -> None:
    admin, api = stack.passwords()
    assert admin != api
    assert [len(admin), len(api)] == [48, 48]
    for service in ("secrets", "redis", "api"):
        shown = json.dumps(stack.inspect(service)) + stack.compose("logs", service) + stack.compose("config")
        assert not [password for password in (admin, api) if password in shown], service
    assert admin not in stack.compose("exec", "-T", "redis", "sh", "-c", "cat /proc/[0-9]*/cmdline", check=False)


async def test_the_api_has_its_own_url_and_not_the_password_of_the_administrator(stack: Stack) -> None:
    api = stack.passwords()[1]
    assert stack.in_api("sh", "-c", "ls /secrets") == "api-keys\nredis-url\n"
    assert stack.in_api("cat", "/secrets/redis-url") == f"redis://holdfast:{api}@redis:6379"
    assert "Read-only file system" in stack.compose("exec", "-T", "api", "touch", "/secrets/x", check=False)
    assert "Read-only file system" in stack.compose("exec", "-T", "redis", "touch", "/secrets/x", check=False)


async def test_another_start_keeps_the_passwords_and_the_data(stack: Stack) -> None:
    before = stack.passwords()
    async with stack.client() as client:
        mugs = await add_product(client, 10)
    stack.down()
    stack.up()
    assert stack.passwords() == before
    async with stack.client() as client:
        assert (await client.get(f"/products/{mugs}")).json()["stock"] == 10


async def test_lost_passwords_are_replaced_and_the_data_remain(stack: Stack) -> None:
    """As after an upgrade from a version whose passwords were in `.env`: there is a volume with data only."""
    before = stack.passwords()
    async with stack.client() as client:
        mugs = await add_product(client, 10)
    stack.down()
    docker("volume", "rm", f"{PROJECT}_redis-secrets", f"{PROJECT}_api-secrets")
    stack.up()
    assert not set(before) & set(stack.passwords())
    async with stack.client() as client:
        assert (await client.get(f"/products/{mugs}")).json()["stock"] == 10


async def test_a_setting_of_the_environment_reaches_the_api_and_another_shop_its_redis_user(stack: Stack) -> None:
    other = {"HOLDFAST_SHOP": "shop2", "HOLDFAST_LOG_LEVEL": "debug"}
    try:
        stack.up(**other)
        assert {f"{name}={value}" for name, value in other.items()} <= set(stack.in_api("env").splitlines())
        async with stack.client() as client:
            await add_product(client, 10)
        assert stack.redis("EXISTS", "{shop2}:meta") == "1"
        assert "NOPERM" in stack.redis_as_api("HGET", "{shop}:meta", "layout")
    finally:
        stack.environment = {name: text for name, text in stack.environment.items() if name not in other}
        stack.up()


async def test_the_health_check_needs_no_proxy_and_not_the_published_port(stack: Stack) -> None:
    assert stack.environment["HOLDFAST_PORT"] != "8000"
    proxies = [part for name in ("http_proxy", "HTTP_PROXY") for part in ("-e", f"{name}=http://127.0.0.1:9")]
    stack.compose("exec", "-T", *proxies, "api", "holdfast", "health")


async def test_redis_is_configured_to_lose_no_data(stack: Stack) -> None:
    names = ("appendonly", "appendfsync", "no-appendfsync-on-rewrite", "maxmemory-policy")
    found = stack.redis("CONFIG", "GET", *names).split()
    settings = dict(zip(found[::2], found[1::2], strict=True))
    assert [settings[name] for name in names] == ["yes", "always", "no", "noeviction"]


async def test_the_image_has_no_secrets_and_no_uv_and_its_user_owns_no_file(stack: Stack) -> None:
    [image] = json.loads(docker("image", "inspect", IMAGE))
    measurements.append(f"image: {image['Size'] / 1e6:.0f} MB")
    description = docker("history", "--no-trunc", IMAGE) + json.dumps(image)
    assert "PASSWORD" not in description.upper()
    assert "REDIS_URL" not in description
    assert image["Config"]["User"] == "10001:10001"
    assert image["Config"]["Cmd"] == ["holdfast", "serve"]
    assert image["Config"]["Labels"]["org.opencontainers.image.title"] == "Holdfast"
    # This container has a writable file system: the file permissions alone protect the code.
    command = (
        "find / -xdev -name 'uv' -o -xdev -name 'uvx' -o -xdev -user 10001 -not -path '/proc/*'; "
        "touch /app/x || touch /app/.venv/x || find /app -name app.py -exec touch {} + || echo read-only; "
        "find /app -path '*/service/lua/place_order.lua' -o -path '*/service/__pycache__/app.*.pyc'"
    )
    found = docker("run", "--rm", "--network", "none", "--entrypoint", "sh", IMAGE, "-c", command).splitlines()
    assert found[0] == "read-only", found
    assert sorted(path.rpartition("/")[2].split(".")[0] for path in found[1:]) == ["app", "place_order"], found


async def test_the_image_has_the_code_of_this_checkout(stack: Stack) -> None:
    """Not an older version out of uv's cache: see `cache-keys` in pyproject.toml."""
    paths = [*sorted((ROOT / "service").rglob("*.py")), *sorted((ROOT / "lua").glob("*.lua"))]
    names = [str(path.relative_to(ROOT)).replace("lua/", "service/lua/") for path in paths]
    command = "cd /app/.venv/lib/python*/site-packages && sha256sum " + " ".join(names)
    found = docker("run", "--rm", "--network", "none", "--entrypoint", "sh", IMAGE, "-c", command).split()[::2]
    assert found == [sha256(path.read_bytes()).hexdigest() for path in paths]


async def test_all_tests_pass_inside_the_test_image() -> None:
    image = f"{IMAGE}-test"
    docker("build", "--target", "test", "--tag", image, ".", timeout=300)
    try:
        # Docker disables IPv6 in a container without a network, and a test needs the address ::1.
        options = ("--name", image, "--network", "none", "--sysctl", "net.ipv6.conf.all.disable_ipv6=0")
        summary = docker("run", *options, image, timeout=1800).splitlines()[-1]
    finally:
        # A container that was started goes on running when the command `docker run` is killed after its time.
        docker("rm", "--force", "--volumes", image)
        docker("image", "rm", image)
    measurements.append(f"tests inside the test image: {summary.strip('= ')}")
    assert " passed" in summary
    assert "skipped" not in summary
