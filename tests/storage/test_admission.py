"""How many commands may wait for Redis: a model of Redis with a speed of its own, and of requests that come to it."""

from collections.abc import Callable
from typing import Any

import pytest

from service.domain.errors.storage import Overloaded
from service.storage.admission import BURST_WAIT, MIN_LIMIT, STANDING_WAIT, AdmissionLimit
from service.storage.sender import CommandSender
from tests.support.shop import add_mugs, make_store, new_order

STEP = 0.001


class Run:
    """What became of the requests: seconds that those waited which were admitted, with the moment of each."""

    def __init__(self) -> None:
        self.waited: list[tuple[float, float]] = []
        self.refused = 0

    def waits_after(self, moment: float) -> list[float]:
        return [seconds for at, seconds in self.waited if at > moment]


def simulate(
    answers_at: Callable[[float, list[float]], int], requests_at: Callable[[float], int], seconds: float
) -> Run:
    """Let requests come in steps of a millisecond. `answers_at(now, queue)`: how many commands Redis answers then."""
    admission, run, queue = AdmissionLimit(4096), Run(), list[float]()
    for step in range(int(seconds / STEP)):
        now = 1000 + step * STEP
        for _ in range(requests_at(now - 1000)):
            if len(queue) < admission.limit:
                queue.append(now)
            else:
                run.refused += 1
        answered = queue[: answers_at(now - 1000, queue)]
        del queue[: len(answered)]
        run.waited += [(began - 1000, now - began) for began in answered]
        if answered:
            admission.note(len(answered), len(queue), now - answered[-1], now)
    return run


def steady(per_ms: float) -> Callable[..., int]:
    """Redis, or clients, with a steady speed."""
    return lambda now, *_: int((now + STEP) * per_ms * 1000 + 1e-6) - int(now * per_ms * 1000 + 1e-6)


@pytest.mark.parametrize("per_ms", [0.2, 1, 15])
def test_three_times_the_capacity_is_served_at_full_speed_and_the_rest_is_refused_early(per_ms: float) -> None:
    run = simulate(steady(per_ms), steady(3 * per_ms), 5)
    assert len(run.waited) >= 0.99 * 5000 * per_ms
    assert run.refused > 0.6 * 3 * 5000 * per_ms
    allowed = max(STANDING_WAIT, MIN_LIMIT / (per_ms * 1000))
    assert max(run.waits_after(1)) <= 1.2 * allowed
    assert max(run.waits_after(0)) <= 1.2 * BURST_WAIT


@pytest.mark.parametrize("per_ms", [0.2, 1, 15])
def test_load_within_the_capacity_is_never_refused(per_ms: float) -> None:
    run = simulate(steady(per_ms), steady(0.95 * per_ms), 5)
    assert run.refused == 0


def test_a_burst_is_not_refused_if_it_is_over_soon() -> None:
    def bursts(now: float) -> int:
        return 3000 if round(now / STEP) % 1000 == 0 else 1

    run = simulate(steady(10), bursts, 5)
    assert run.refused == 0
    assert max(run.waits_after(0)) <= 0.35


def test_a_disk_that_syncs_slowly_still_gets_whole_groups_of_orders() -> None:
    """Each 60 ms, Redis answers all that came before the last sync."""

    def syncs(now: float, queue: list[float]) -> int:
        if round(now / STEP) % 60:
            return 0
        return sum(began - 1000 <= now - 0.06 for began in queue)

    few = simulate(syncs, lambda now: int(round(now / STEP) % 20 == 0), 1)  # it learns how long one takes
    assert few.refused == 0
    run = simulate(syncs, lambda now: int(round(now / STEP) % 20 == 0) if now < 1 else 5, 5)
    assert run.refused <= 0.01 * 20_000


def test_after_a_stop_of_redis_all_is_admitted_again() -> None:
    def stops(now: float, queue: list[float]) -> int:
        return 0 if 1 < now < 2 else 20

    run = simulate(stops, steady(10), 4)
    assert len(run.waits_after(2.5)) >= 0.99 * 15_000


async def test_new_work_is_refused_and_old_work_is_ended_while_redis_is_too_slow(redis: CommandSender) -> None:
    is_full = False
    store = make_store(redis, has_room=lambda: not is_full)
    product = await add_mugs(store)
    pending = [(await store.orders.place(new_order((product, 1), status="pending"))).order.id for _ in range(2)]
    is_full = True
    refused: list[Any] = [
        lambda: store.orders.place(new_order((product, 1))),
        lambda: store.products.get(product),
        lambda: store.stock.levels(product),
    ]
    for call in refused:
        with pytest.raises(Overloaded) as raised:
            await call()
        assert 1 <= int(raised.value.headers()["Retry-After"]) <= 4
    await store.holds.complete(pending[0])
    await store.holds.cancel(pending[1])
    await store.check()
    await store.check_writable()
    assert (await store.orders.get(pending[0])).status == "completed"
    is_full = False
    assert (await store.stock.levels(product)).sold == 1
