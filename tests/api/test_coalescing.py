"""RequestCoalescer: many callers share a load, and no caller gets a value from before its call.

With more loads than slots: who comes first, who waits, and who is refused.
"""

import asyncio
import random

import pytest
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from service.api.coalescing import Caller, ClientState, RequestCoalescer
from service.domain.errors.storage import Overloaded
from service.storage.sender import CommandSender
from tests.support.problems import assert_problem
from tests.support.shop import http_client, make_store, mug


class Source:
    """A value that changes. Each load of it waits until the test sets a result on its gate."""

    def __init__(self) -> None:
        self.value = 0
        self.gates: list[asyncio.Future[None]] = []

    async def load(self) -> int:
        value = self.value  # read at the start of the load: the oldest value that the load may return
        gate = asyncio.get_running_loop().create_future()
        self.gates.append(gate)
        await gate
        return value


async def settle() -> None:
    """Let all tasks run until they wait."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_callers_that_arrive_during_a_load_share_the_next_load() -> None:
    source, coalescer = Source(), RequestCoalescer[int]()
    first = asyncio.create_task(coalescer.read("page", source.load))
    await settle()
    others = [asyncio.create_task(coalescer.read("page", source.load)) for _ in range(50)]
    await settle()
    assert len(source.gates) == 1  # the others wait
    source.value = 1
    source.gates[0].set_result(None)
    await settle()
    assert await first == 0
    assert len(source.gates) == 2
    source.gates[1].set_result(None)
    assert await asyncio.gather(*others) == [1] * 50


async def test_callers_that_arrive_together_share_a_load() -> None:
    source, coalescer = Source(), RequestCoalescer[int]()
    tasks = [asyncio.create_task(coalescer.read("page", source.load)) for _ in range(50)]
    await settle()
    assert len(source.gates) == 1
    source.gates[0].set_result(None)
    assert await asyncio.gather(*tasks) == [0] * 50


async def test_load_that_waits_for_its_turn_is_shared_until_it_begins() -> None:
    source, coalescer = Source(), RequestCoalescer[int](max_concurrent=1)
    other = asyncio.create_task(coalescer.read("other page", source.load))
    await settle()
    first = asyncio.create_task(coalescer.read("page", source.load))
    await settle()
    source.value = 1
    second = asyncio.create_task(coalescer.read("page", source.load))
    await settle()
    source.gates[0].set_result(None)
    await settle()
    source.value = 2  # the load has begun, so the next caller must share another load
    third = asyncio.create_task(coalescer.read("page", source.load))
    await settle()
    source.gates[1].set_result(None)
    assert [await task for task in (other, first, second)] == [0, 1, 1]
    await settle()
    source.gates[2].set_result(None)
    assert await third == 2
    assert len(source.gates) == 3


async def test_no_caller_gets_a_value_that_is_older_than_its_call() -> None:
    source, coalescer = Source(), RequestCoalescer[int]()
    calls: list[tuple[int, asyncio.Task[int]]] = []
    for step in range(30):
        source.value = step
        calls.append((step, asyncio.create_task(coalescer.read("page", source.load))))
        await settle()
        if step % 3 == 2:  # three callers arrive during each load
            next(gate for gate in source.gates if not gate.done()).set_result(None)
            await settle()
    while gates := [gate for gate in source.gates if not gate.done()]:
        gates[0].set_result(None)
        await settle()
    for value_at_call, task in calls:
        assert await task >= value_at_call
    assert len(source.gates) < len(calls)


async def test_loads_of_different_keys_run_at_the_same_time() -> None:
    source, coalescer = Source(), RequestCoalescer[int]()
    tasks = [asyncio.create_task(coalescer.read(key, source.load)) for key in "abc"]
    await settle()
    assert len(source.gates) == 3
    for gate in source.gates:
        gate.set_result(None)
    assert await asyncio.gather(*tasks) == [0, 0, 0]


async def test_error_of_a_load_reaches_all_its_callers_and_no_later_caller() -> None:
    coalescer = RequestCoalescer[int]()
    fails = True

    async def load() -> int:
        await asyncio.sleep(0)
        if fails:
            raise ValueError("no")
        return 7

    results = await asyncio.gather(*(coalescer.read("page", load) for _ in range(5)), return_exceptions=True)
    assert [type(result) for result in results] == [ValueError] * 5
    fails = False
    assert await coalescer.read("page", load) == 7


async def test_cancelled_caller_does_not_cancel_the_shared_load() -> None:
    source, coalescer = Source(), RequestCoalescer[int]()
    leaves = asyncio.create_task(coalescer.read("page", source.load))
    await settle()
    stays, leaves_later = (asyncio.create_task(coalescer.read("page", source.load)) for _ in range(2))
    await settle()
    for task in (leaves, leaves_later):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    source.gates[0].set_result(None)
    await settle()
    source.gates[1].set_result(None)
    assert await stays == 0


async def test_value_of_a_finished_load_is_not_used_again() -> None:
    source, coalescer = Source(), RequestCoalescer[int]()
    task = asyncio.create_task(coalescer.read("page", source.load))
    await settle()
    source.value = 1
    source.gates[0].set_result(None)
    assert await task == 0
    again = asyncio.create_task(coalescer.read("page", source.load))
    await settle()
    source.gates[1].set_result(None)
    assert await again == 1


# More loads than slots


class Client:
    """A client that asks for pages, all different, and may leave."""

    def __init__(self, coalescer: RequestCoalescer[str], name: str) -> None:
        self.coalescer = coalescer
        self.name = name
        self.state = ClientState.WAITS
        self.began: list[int] = []
        self.gates: list[asyncio.Future[str]] = []

    def ask(self, count: int = 1, key: str | None = None) -> list[asyncio.Task[str]]:
        """Ask for `count` pages."""
        return [asyncio.create_task(self._read(number, key or f"{self.name} {number}")) for number in range(count)]

    async def _read(self, number: int, key: str) -> str:
        async def load() -> str:
            self.began.append(number)
            self.gates.append(asyncio.get_running_loop().create_future())
            return await self.gates[-1]

        return await self.coalescer.read(key, load, Caller(self.name, lambda: self.state))

    async def finish(self, count: int = 1) -> None:
        """End the oldest loads, one after the other."""
        for _ in range(count):
            next(gate for gate in self.gates if not gate.done()).set_result(self.name)
            await settle()


async def test_a_load_whose_client_is_gone_does_not_begin() -> None:
    coalescer = RequestCoalescer[str](max_concurrent=1)
    gone, other = Client(coalescer, "gone"), Client(coalescer, "other")
    tasks = gone.ask(100)
    await settle()
    gone.state = ClientState.GONE
    [page] = other.ask()
    await settle()
    await gone.finish()
    await other.finish()
    assert await page == "other"
    assert gone.began == [0]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [str, *[ClientDisconnect] * 99]
    assert coalescer.is_idle()


async def test_a_load_that_one_client_still_waits_for_begins_although_another_is_gone() -> None:
    coalescer = RequestCoalescer[str](max_concurrent=1)
    gone, other = Client(coalescer, "gone"), Client(coalescer, "other")
    gone.ask()
    await settle()
    first, second = gone.ask(key="page"), other.ask(key="page")
    await settle()
    gone.state = ClientState.GONE
    await gone.finish(2)
    assert [task.result() for task in first + second] == ["gone"] * 2  # the load of the first caller


async def test_a_client_that_may_be_gone_is_answered_after_the_others() -> None:
    coalescer = RequestCoalescer[str](max_concurrent=1)
    half_closed, other = Client(coalescer, "half-closed"), Client(coalescer, "other")
    first = half_closed.ask(2)
    await settle()
    half_closed.state = ClientState.MAY_BE_GONE
    second = other.ask(2)
    await settle()
    await half_closed.finish()
    await other.finish(2)
    assert all(task.done() for task in second)
    await half_closed.finish()
    assert [await task for task in first] == ["half-closed"] * 2


async def test_one_client_cannot_take_all_slots() -> None:
    coalescer = RequestCoalescer[str](max_concurrent=4)
    greedy, other = Client(coalescer, "greedy"), Client(coalescer, "other")
    greedy.ask(100)
    await settle()
    assert len(greedy.began) == 4  # nobody else asks
    pages = other.ask(10)
    await settle()
    await greedy.finish(2)
    assert (len(greedy.began), len(other.began)) == (4, 2)
    await other.finish(1)
    assert (len(greedy.began), len(other.began)) == (4, 3)
    await other.finish(9)
    assert all(task.done() for task in pages)


@pytest.mark.parametrize("state", list(ClientState))
async def test_the_youngest_loads_of_the_client_with_the_most_are_refused_when_too_many_wait(
    state: ClientState,
) -> None:
    coalescer = RequestCoalescer[str](max_concurrent=1, max_queued=10)
    greedy, other = Client(coalescer, "greedy"), Client(coalescer, "other")
    many = greedy.ask(11)
    await settle()
    greedy.state = state
    few = other.ask(3)
    await settle()
    refused = [number for number, task in enumerate(many) if task.done()]
    assert refused == [8, 9, 10]
    for number in refused:
        with pytest.raises(Overloaded, match="10 pages wait already"):
            await many[number]
    assert not any(task.done() for task in few)


async def test_a_load_that_waits_too_long_is_refused() -> None:
    coalescer = RequestCoalescer[str](max_concurrent=1, max_wait_seconds=0.01)
    client = Client(coalescer, "client")
    first, second = client.ask(2)
    with pytest.raises(Overloaded, match="waited for"):
        await second
    await client.finish()
    assert await first == "client"
    assert coalescer.is_idle()


@pytest.mark.parametrize("seed", range(20))
async def test_every_slot_is_free_again_after_random_callers_with_random_ends(seed: int) -> None:
    draw = random.Random(seed)
    coalescer = RequestCoalescer[str](max_concurrent=3, max_queued=5, max_wait_seconds=0.002)
    clients = [Client(coalescer, name) for name in "abc"]
    tasks: list[asyncio.Task[str]] = []
    for _ in range(100):
        client = draw.choice(clients)
        match draw.randint(0, 4):
            case 0 | 1:
                tasks += client.ask(draw.randint(1, 6), key=draw.choice([None, "shared"]))
            case 2:
                client.state = draw.choice(list(ClientState))
            case 3:
                for gate in client.gates:
                    if not gate.done():
                        gate.set_result("") if draw.random() < 0.8 else gate.set_exception(ValueError())
            case 4:
                await asyncio.sleep(draw.choice([0, 0, 0.001, 0.003]))
    while not all(task.done() for task in tasks):
        for client in clients:
            for gate in client.gates:
                if not gate.done():
                    gate.set_result("")
        await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert coalescer.is_idle()
    free = clients[0].ask(3)
    await settle()
    assert sum(not gate.done() for gate in clients[0].gates) == 3
    await clients[0].finish(3)
    await asyncio.gather(*free)


@pytest.mark.parametrize("path", ["/products", "/orders"])
async def test_a_page_for_which_too_many_others_wait_is_refused_with_503(redis: CommandSender, path: str) -> None:
    always_full = RequestCoalescer[Response](max_concurrent=0, max_queued=0)
    async with http_client(make_store(redis), always_full) as client:
        response = await client.get(path)
        assert_problem(response, 503, "overloaded")
        assert response.headers["Retry-After"] in "1234"
        assert (await client.post("/products", json=mug())).status_code == 201
