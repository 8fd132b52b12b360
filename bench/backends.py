"""Starts the backends (an engine or PostgreSQL), fills them with data, and checks afterwards that the data agree."""

import asyncio
import itertools
import os
import random
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal
from uuid import uuid4

import hiredis
from redis import Redis
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from bench import alternative
from bench.apps import PoolSender
from bench.data import DESCRIPTION, LARGE_STOCK, PRICE, product_name
from bench.processes import end_with_parent, stop
from service.domain.requests import NewOrder, NewProduct, StockChange
from service.engine.launcher import run_engine
from service.ops.audit import audit
from service.storage import keys
from service.storage.store import Store

Durability = Literal["off", "everysec", "always"]
"""For PostgreSQL, `always` means synchronous_commit on, and `off` means off. It has no `everysec`."""

SHOP: Final = "shop"
EVENTS_MAX: Final = 1_000_000

_ORDER, _PRODUCT = 888_000_001, 777_000_000
"""Ids that occur nowhere else in a command, so _Template can find them and replace them."""


class Engine:
    """The embedded engine of Holdfast."""

    def __init__(self, url: str, durability: Durability) -> None:
        self.url = url
        self.durability = "none" if durability == "off" else durability
        self.order_commands = 0
        self.client = Redis.from_url(url)
        if durability == "off":
            self.client.config_set("appendonly", "no")
        self.pid = int(self.client.info("server")["process_id"])

    def environment(self) -> dict[str, str]:
        """Return the settings for a server on this engine.

        4,096 connections that read pages of 100 rows need more calls under way than the default of
        HOLDFAST_MAX_IN_FLIGHT allows.
        """
        return {
            "HOLDFAST_REDIS_URL": self.url,
            "HOLDFAST_DURABILITY": self.durability,
            "HOLDFAST_SHOP": SHOP,
            "HOLDFAST_EVENTS_MAX": str(EVENTS_MAX),
            "HOLDFAST_MAX_IN_FLIGHT": "65536",
            "HOLDFAST_LOG_LEVEL": "warning",
        }

    def fill(self, products: int, orders: int = 0, stock: int = LARGE_STOCK) -> None:
        """Replace all data by products 1 to n and orders with two lines, written by the Store's own scripts."""
        add_product, place_order = asyncio.run(self._templates(2, stock))
        self.client.flushall()
        draw = random.Random(1)
        self._send_all(_Template(add_product, [_PRODUCT]), ((number,) for number in range(1, products + 1)))
        self._send_all(
            _Template(place_order, [_ORDER, _PRODUCT + 1, _PRODUCT + 2]),
            ((number, *draw.sample(range(1, products + 1), 2)) for number in range(1, orders + 1)),
        )
        self.client.set(keys.order_ids(SHOP), orders)
        if self.client.config_get("appendonly")["appendonly"] == "yes":
            # Otherwise the engine would rewrite its file during a measurement. PostgreSQL does a CHECKPOINT instead.
            self.client.bgrewriteaof()
            while any(
                self.client.info("persistence")[f"aof_rewrite_{state}"] for state in ("in_progress", "scheduled")
            ):
                time.sleep(0.05)

    def restock(self, amount: int) -> None:
        """Add units to the stock of product 1."""

        async def run() -> None:
            sender = PoolSender(self.url)
            move = StockChange.model_validate({"change": amount, "reason": "flash sale"})
            await self._store(sender, SHOP).stock.change(1, move)
            await sender.client.aclose()

        asyncio.run(run())

    def check_balance(self) -> str:
        """Run the audit, and return what it checked. Raise AssertionError if stock and orders do not agree."""

        async def run() -> str:
            sender = PoolSender(self.url)
            report = await audit(self._store(sender, SHOP), SHOP)
            await sender.client.aclose()
            assert report.balanced, f"the audit found: {report.findings[:5]}"
            return f"audit: {report.products:,} products and {report.orders:,} orders are balanced"

        return asyncio.run(run())

    def busy_seconds(self) -> float:
        """Return how long the one thread of the engine was not idle: its CPU time, and the time of its fsyncs."""
        return float(self.client.info("cpu")["used_active_time_main_thread"])

    def data_bytes(self) -> int:
        """Return the bytes that the engine uses for its data."""
        return int(self.client.info("memory")["used_memory"])

    def units_sold(self, product_id: int) -> int:
        """Return how many units of a product are in orders."""

        async def run() -> int:
            sender = PoolSender(self.url)
            product = await self._store(sender, SHOP).products.get(product_id)
            await sender.client.aclose()
            return LARGE_STOCK - product.stock

        return asyncio.run(run())

    def order_command(self, lines: int) -> list[str]:
        """Return the command for an order of the first products. redis-benchmark draws the order id at random.

        redis-benchmark makes its seed from the time and its process id, so two runs may draw the same numbers.
        Therefore each order id begins with the number of the run.
        """
        self.order_commands += 1
        _, command = asyncio.run(self._templates(lines, LARGE_STOCK))
        template = _Template(command, [_ORDER, *(_PRODUCT + line for line in range(1, lines + 1))])
        return [part.decode() for part in template.fill((f"{self.order_commands}__rand_int__", *range(1, lines + 1)))]

    async def _templates(self, lines: int, stock: int) -> tuple[list[bytes], list[bytes]]:
        """Return the commands that the Store sends to add a product and to place an order.

        They are recorded in a temporary shop, with the ids _PRODUCT and _ORDER, which _Template replaces.
        """
        sender = _RecordingSender(self.url)
        shop = f"template-{uuid4().hex}"
        store = self._store(sender, shop)
        await sender.send("SET", keys.order_ids(shop), _ORDER - 1)
        for line in range(1, lines + 1):
            await store.products.add(_template_product(_PRODUCT + line, LARGE_STOCK))
        ordered = [{"product_id": _PRODUCT + line, "quantity": 1} for line in range(1, lines + 1)]
        await store.orders.place(NewOrder.model_validate({"products": ordered}))
        place_order = sender.last
        await store.products.add(_template_product(_PRODUCT, stock))
        add_product = sender.last
        await sender.client.aclose()
        return add_product, place_order

    def _store(self, sender: PoolSender, shop: str) -> Store:
        return Store(sender, shop=shop, durability="none", events_max=EVENTS_MAX)

    def _send_all(self, template: "_Template", numbers_of_each: Iterator[tuple[int, ...]]) -> None:
        """Send a command many times, pipelined over a plain socket: redis-py would take minutes for a million."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(self.url.removeprefix("unix://"))
            while batch := [template.fill(numbers) for numbers in itertools.islice(numbers_of_each, 1000)]:
                connection.sendall(b"".join(hiredis.pack_command(tuple(command)) for command in batch))  # type: ignore[arg-type]  # its stub knows only tuples with one part
                replies, missing = hiredis.Reader(), len(batch)
                while missing:
                    replies.feed(connection.recv(65_536))
                    while (reply := replies.gets()) is not False:
                        assert isinstance(reply, list), reply
                        assert reply[0] in (b"added", b"placed"), reply
                        missing -= 1


class _Template:
    """A command whose numbers can be replaced. It is made from a recorded command with known numbers."""

    def __init__(self, command: list[bytes], numbers: Sequence[int]) -> None:
        self.parts = [re.sub(b"{template-[0-9a-f]+}", b"{%s}" % SHOP.encode(), part) for part in command]
        self.places = [
            (place, part.replace(b"%d" % number, b"%b"), which)
            for place, part in enumerate(self.parts)
            for which, number in enumerate(numbers)
            if b"%d" % number in part
        ]
        assert {which for _, _, which in self.places} == set(range(len(numbers))), f"{numbers} are not all in {command}"

    def fill(self, numbers: Sequence[int | str]) -> list[bytes]:
        """Return the command with these numbers."""
        filled = self.parts.copy()
        for place, form, which in self.places:
            filled[place] = form % str(numbers[which]).encode()
        return filled


class _RecordingSender(PoolSender):
    """Remembers the last script call."""

    last: list[bytes]
    sha: bytes | str | int

    def send(self, *command: bytes | str | int, safe_to_repeat: bool = False) -> Any:
        if command[0] == "EVALSHA":
            self.sha = command[1]
        if command[0] in ("EVALSHA", "EVAL"):
            self.last = [str(part).encode() for part in ("EVALSHA", self.sha, *command[2:])]
        return super().send(*command, safe_to_repeat=safe_to_repeat)


def _template_product(number: int, stock: int) -> NewProduct:
    return NewProduct.model_validate(
        {"id": number, "name": product_name(number), "description": DESCRIPTION, "price": PRICE, "stock": stock}
    )


class Postgres:
    """A private PostgreSQL for alternative.py."""

    def __init__(self, folder: Path, pid: int) -> None:
        self.url = f"postgresql+asyncpg://postgres@/postgres?host={folder}"
        self.pid = pid

    def environment(self, pool_size: int) -> dict[str, str]:
        """Return the settings for a server on this PostgreSQL."""
        return {"BENCH_DATABASE_URL": self.url, "BENCH_POOL_SIZE": str(pool_size)}

    def fill(self, products: int, orders: int = 0, stock: int = LARGE_STOCK) -> None:
        """Create the tables, with products 1 to n and orders with two lines."""

        async def run() -> None:
            engine = create_async_engine(self.url, isolation_level="AUTOCOMMIT")
            async with engine.connect() as connection:
                await connection.run_sync(alternative.metadata.create_all)
            await engine.dispose()

        asyncio.run(run())
        self._execute(
            f"""INSERT INTO products SELECT n, 'Mug ' || n, '{DESCRIPTION}', {PRICE * 100}, {stock}, {stock}
                FROM generate_series(1, {products}) n""",
            f"""INSERT INTO orders (total_price, status)
                SELECT {2 * PRICE * 100}, 'completed' FROM generate_series(1, {orders})""",
            # Each order has two different products. They are computed from its id.
            f"""INSERT INTO order_lines SELECT id, 1 + (id * 7919 + line * (1 + id % 97)) % {products}, 1, {PRICE * 100}
                FROM orders, generate_series(0, 1) line""",
            """UPDATE products SET stock = stock - sold FROM
               (SELECT product_id, sum(quantity) sold FROM order_lines GROUP BY 1) s WHERE id = product_id""",
            "VACUUM (ANALYZE)",
            "CHECKPOINT",
        )

    def restock(self, amount: int) -> None:
        """Add units to the stock of product 1."""
        self._execute(f"UPDATE products SET stock = stock + {amount}, received = received + {amount} WHERE id = 1")

    def check_balance(self) -> str:
        """Add up stock and orders, and return what was checked. Raise AssertionError if a sum is wrong."""
        wrong, products, orders = self._execute("""
            SELECT count(*) FILTER (WHERE received <> stock + coalesce(sold, 0)),
                   count(*), (SELECT count(*) FROM orders)
            FROM products LEFT JOIN
                 (SELECT product_id, sum(quantity) sold FROM order_lines GROUP BY 1) s ON id = product_id""")
        assert wrong == 0, f"the stock of {wrong} products is not the received units minus the ordered units"
        return f"SQL sums: {products:,} products and {orders:,} orders are balanced"

    def data_bytes(self) -> int:
        """Return the bytes of orders and order lines on disk, with their indexes."""
        [size] = self._execute(
            "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relname LIKE 'order%' AND relkind = 'r'"
        )
        return int(size)

    def _execute(self, *statements: str) -> Any:
        """Execute all statements. Return the first row of the last one, if it returns rows."""

        async def run() -> Any:
            engine = create_async_engine(self.url, isolation_level="AUTOCOMMIT")
            async with engine.connect() as connection:
                for statement in statements:
                    result = await connection.execute(text(statement))
            row = result.first() if result.returns_rows else None
            await engine.dispose()
            return row

        return asyncio.run(run())


Backend = Engine | Postgres


@contextmanager
def start_engine(folder: Path, durability: Durability) -> Iterator[Engine]:
    """Start an embedded engine in a directory, and stop it at the end."""
    with run_engine(folder, "none" if durability == "off" else durability) as url:
        backend = Engine(url, durability)
        yield backend
        backend.client.close()


@contextmanager
def start_postgres(folder: Path, durability: Durability) -> Iterator[Postgres]:
    """Start PostgreSQL in a directory, and stop it at the end.

    Its settings follow https://www.postgresql.org/docs/15/runtime-config.html and the PostgreSQL wiki.
    """
    folder.mkdir()
    user: dict[str, Any] = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        shutil.chown(folder, "postgres", "postgres")
        user = {"user": "postgres", "group": "postgres", "extra_groups": ()}
    data = folder / "data"
    popen_options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "cwd": folder}
    subprocess.run(
        [
            postgres_binary("initdb"),
            "-D",
            data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        ],
        check=True,
        stderr=subprocess.PIPE,
        **popen_options,
        **user,
    )
    megabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(folder),
        "max_connections": "300",
        "shared_buffers": f"{min(megabytes // 8, 2048)}MB",
        "effective_cache_size": f"{megabytes // 2}MB",
        "work_mem": "16MB",
        "maintenance_work_mem": "256MB",
        "wal_buffers": "16MB",
        "min_wal_size": "1GB",
        "max_wal_size": "8GB",
        "checkpoint_timeout": "15min",
        "checkpoint_completion_target": "0.9",
        "random_page_cost": "1.1",
        "effective_io_concurrency": "200",
        "synchronous_commit": "on" if durability == "always" else "off",
    }
    command = [postgres_binary("postgres"), "-D", str(data)]
    command += [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            end_with_parent(command), stderr=log, start_new_session=True, **popen_options, **user
        )
    try:
        deadline = time.monotonic() + 30
        while subprocess.run([postgres_binary("pg_isready"), "-q", "-h", folder], check=False).returncode:
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, "PostgreSQL does not answer"
            time.sleep(0.05)
        yield Postgres(folder, process.pid)
    finally:
        stop(process, with_signal=2)  # SIGINT: a fast shutdown, which does not wait for clients


def postgres_binary(name: str) -> str:
    """Return the path of a PostgreSQL program. Debian installs these outside of PATH."""
    found = [*sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), *filter(None, [shutil.which(name)])]
    assert found, "PostgreSQL is missing (Debian: postgresql)"
    return str(found[-1])
