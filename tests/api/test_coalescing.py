"""Shared reads: one load for many, and nobody reads older than their own request."""

import asyncio

import pytest

from service.api.coalescing import RequestCoalescer


class Source:
    """A value that changes, and loads of it that take until they are let go."""

    def __init__(self) -> None:
        self.value = 0
        self.loads: list[asyncio.Future[None]] = []

    async def load(self) -> int:
        value = self.value  # read at the beginning: the oldest that a load may give
        gate = asyncio.get_running_loop().create_future()
        self.loads.append(gate)
        await gate
        return value


async def settle() -> None:
    """Lets all tasks run until they wait."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_requests_that_arrive_during_a_load_share_the_next_one() -> None:
    source, reads = Source(), RequestCoalescer[int]()
    first = asyncio.create_task(reads.read("page", source.load))
    await settle()
    others = [asyncio.create_task(reads.read("page", source.load)) for _ in range(50)]
    await settle()
    assert len(source.loads) == 1  # the others wait
    source.value = 1
    source.loads[0].set_result(None)
    await settle()
    assert await first == 0
    assert len(source.loads) == 2
    source.loads[1].set_result(None)
    assert await asyncio.gather(*others) == [1] * 50


async def test_requests_of_one_tick_share_one_load() -> None:
    source, reads = Source(), RequestCoalescer[int]()
    tasks = [asyncio.create_task(reads.read("page", source.load)) for _ in range(50)]
    await settle()
    assert len(source.loads) == 1
    source.loads[0].set_result(None)
    assert await asyncio.gather(*tasks) == [0] * 50


async def test_a_load_that_has_to_wait_for_its_turn_is_shared_until_it_begins() -> None:
    source, reads = Source(), RequestCoalescer[int](max_concurrent=1)
    other = asyncio.create_task(reads.read("other page", source.load))
    await settle()
    first = asyncio.create_task(reads.read("page", source.load))
    await settle()
    source.value = 1
    second = asyncio.create_task(reads.read("page", source.load))
    await settle()
    source.loads[0].set_result(None)
    await settle()
    source.value = 2  # after the load began: who asks now shares another
    third = asyncio.create_task(reads.read("page", source.load))
    await settle()
    source.loads[1].set_result(None)
    assert [await task for task in (other, first, second)] == [0, 1, 1]
    await settle()
    source.loads[2].set_result(None)
    assert await third == 2
    assert len(source.loads) == 3


async def test_nobody_reads_older_than_their_own_request() -> None:
    source, reads = Source(), RequestCoalescer[int]()
    asked: list[tuple[int, asyncio.Task[int]]] = []
    for step in range(30):
        source.value = step
        asked.append((step, asyncio.create_task(reads.read("page", source.load))))
        await settle()
        if step % 3 == 2:  # three requests come while each load is under way
            next(gate for gate in source.loads if not gate.done()).set_result(None)
            await settle()
    while gates := [gate for gate in source.loads if not gate.done()]:
        gates[0].set_result(None)
        await settle()
    for value_when_asked, task in asked:
        assert await task >= value_when_asked
    assert len(source.loads) < len(asked)


async def test_different_keys_do_not_wait_for_each_other() -> None:
    source, reads = Source(), RequestCoalescer[int]()
    tasks = [asyncio.create_task(reads.read(key, source.load)) for key in "abc"]
    await settle()
    assert len(source.loads) == 3
    for gate in source.loads:
        gate.set_result(None)
    assert await asyncio.gather(*tasks) == [0, 0, 0]


async def test_an_error_reaches_all_who_share_it_and_the_next_load_is_a_new_one() -> None:
    reads = RequestCoalescer[int]()
    fails = True

    async def load() -> int:
        await asyncio.sleep(0)
        if fails:
            raise ValueError("no")
        return 7

    results = await asyncio.gather(*(reads.read("page", load) for _ in range(5)), return_exceptions=True)
    assert [type(result) for result in results] == [ValueError] * 5
    fails = False
    assert await reads.read("page", load) == 7


async def test_one_who_goes_away_does_not_take_the_load_from_the_others() -> None:
    source, reads = Source(), RequestCoalescer[int]()
    leaver = asyncio.create_task(reads.read("page", source.load))
    await settle()
    stayer, second_leaver = (asyncio.create_task(reads.read("page", source.load)) for _ in range(2))
    await settle()
    for task in (leaver, second_leaver):
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    source.loads[0].set_result(None)
    await settle()
    source.loads[1].set_result(None)
    assert await stayer == 0


async def test_nothing_is_kept_when_all_have_their_answer() -> None:
    source, reads = Source(), RequestCoalescer[int]()
    task = asyncio.create_task(reads.read("page", source.load))
    await settle()
    source.value = 1
    source.loads[0].set_result(None)
    assert await task == 0
    again = asyncio.create_task(reads.read("page", source.load))
    await settle()
    source.loads[1].set_result(None)
    assert await again == 1
