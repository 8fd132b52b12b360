"""RequestCoalescer: many callers share a load, and no caller gets a value from before its call."""

import asyncio

import pytest

from service.api.coalescing import RequestCoalescer


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
