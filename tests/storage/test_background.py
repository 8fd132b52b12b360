"""BackgroundTasks: none is left when they are closed."""

import asyncio

from service.storage.background import BackgroundTasks


async def test_a_task_that_another_one_starts_when_it_is_cancelled_ends_too() -> None:
    tasks = BackgroundTasks()
    before = asyncio.all_tasks()

    async def start_another() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            tasks.start(asyncio.sleep(3600), "another")

    tasks.start(start_another(), "one")
    await asyncio.sleep(0)
    await tasks.close()
    assert asyncio.all_tasks() == before
