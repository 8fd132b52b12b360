"""Sends the purchases of a rehearsal on time, whether the service keeps up or not (an open loop).

The latency of an order counts from the moment when it was due. So a service that stalls is charged for every order
that became due during the stall: there is no "coordinated omission".
"""

import asyncio
import select
import selectors
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from service.ops.load.client import Answer, NoAnswer
from service.ops.load.measurements import Measurements
from service.ops.load.outcomes import (
    Ledger,
    Outcome,
    Reply,
    join_replies,
    outcome_of,
    outcome_of_ending,
    read_reply,
)
from service.ops.load.plan import LoadPlan, Purchase
from service.ops.load.shop import RehearsalShop

MAX_OUTSTANDING: Final = 10_000
"""Buyers at the same moment. Each takes about 20 KB of memory. Further purchases are counted, but not sent."""

_MAX_ATTEMPTS: Final = 6
"""With `--retries`: the pauses between them are 0.1, 0.2, 0.4, 0.8 and 1.6 seconds, or as long as the service asks."""

_MAX_PAUSE_SECONDS: Final = 5.0
"""Longer than the service asks for in Retry-After."""

_MAX_SLEEP_SECONDS: Final = 0.5
"""Until the load looks whether it must stop."""

_MAX_DRAIN_SECONDS: Final = 60.0
"""From the last purchase to the end of the load. Orders that are still not answered then count as unknown."""

_ENDINGS: Final = {
    Outcome.PENDING: "left to expire",
    Outcome.SOLD: "completed",
    Outcome.CANCELLED: "cancelled",
    Outcome.EXPIRED: "expired meanwhile",
    Outcome.MAYBE_SOLD: "completed or not",
    Outcome.MAYBE_CANCELLED: "cancelled or not",
}


class OpenLoop:
    """The buyers of a rehearsal, and what they were told."""

    def __init__(self, plan: LoadPlan, shop: RehearsalShop) -> None:
        self.plan = plan
        self.shop = shop
        self.ledger = Ledger()
        self.measured = Measurements(plan.duration)
        self._stopping = False
        self._clock = asyncio.get_running_loop().time
        self._start = 0.0
        self._errors: list[BaseException] = []

    def stop(self) -> None:
        """Let no further purchase begin. Those that were sent still get their answers."""
        self._stopping = True

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return self._clock() - self._start

    async def run(self, watch: Callable[[float], Awaitable[None]] | None = None) -> None:
        """Send all purchases, and wait for their answers. `watch` is called about twice a second, with the time."""
        cpu = time.process_time()
        self._start = self._clock()
        watching = asyncio.create_task(self._watch(watch)) if watch is not None else None
        buyers: set[asyncio.Task[None]] = set()
        for number, due in enumerate(self.plan.due_times()):
            await self._wait_until(due)
            if self._stopping:
                break
            if len(buyers) >= MAX_OUTSTANDING:
                self.measured.dropped += 1
                continue
            if self._errors:
                break
            self.measured.sent += 1
            buyer = asyncio.create_task(self._buy(number, due))
            buyers.add(buyer)
            buyer.add_done_callback(buyers.discard)
            buyer.add_done_callback(self._keep_error)
        else:
            await self._wait_until(self.plan.duration)
        self.measured.seconds = self.now
        self.measured.cpu_share = (time.process_time() - cpu) / max(self.now, 1e-9)
        if buyers:
            _, late = await asyncio.wait(buyers, timeout=_MAX_DRAIN_SECONDS)
            for buyer in late:
                buyer.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if watching is not None:
            watching.cancel()
            with suppress(asyncio.CancelledError):
                await watching
        if self._errors:
            raise self._errors[0]

    def _keep_error(self, buyer: asyncio.Task[None]) -> None:
        if not buyer.cancelled() and (error := buyer.exception()) is not None:
            self._errors.append(error)

    async def _wait_until(self, due: float) -> None:
        if self.now >= due:
            await asyncio.sleep(0)  # late: the answers that have arrived are read nevertheless
        while (delay := due - self.now) > 0 and not self._stopping:  # noqa: ASYNC110  # an Event costs more
            await asyncio.sleep(min(delay, _MAX_SLEEP_SECONDS))

    async def _watch(self, watch: Callable[[float], Awaitable[None]]) -> None:
        while True:
            await asyncio.sleep(0.5)
            await watch(self.now)

    async def _buy(self, number: int, due: float) -> None:
        """Place one order and, if it is pending, end it as the plan says. Note after each step what is known."""
        measured, ledger = self.measured, self.ledger
        measured.own_delay.add(self.now - due)
        ledger.note(number, Outcome.UNKNOWN)
        purchase = self.plan.purchase(number)
        try:
            reply = await self._place(purchase)
        except asyncio.CancelledError:
            measured.add_failed(self.now, "not answered until the end")
            raise
        now = self.now
        if reply.result == "placed":
            measured.add_accepted(now, now - due)
        elif reply.result == "refused":
            measured.add_refused(now, now - due, reply.reason)
        else:
            measured.add_failed(now, reply.reason)
        outcome = outcome_of(reply, purchase.course)
        ledger.note(number, outcome, reply.order_id or None)
        if outcome is not Outcome.PENDING:
            return
        if purchase.course == "abandon":
            measured.endings_by_kind[_ENDINGS[outcome]] += 1
            return
        await asyncio.sleep(purchase.pause)
        await self._end(purchase, reply.order_id, now + purchase.pause)

    async def _place(self, purchase: Purchase) -> Reply:
        """Send an order until it is decided. Without `--retries`, send it once."""
        body = self.shop.order_body(purchase)
        reply = await self._first_attempt(purchase, body)
        if not self.plan.retries:
            return reply
        for attempt in range(_MAX_ATTEMPTS - 1):
            if reply.result != "failed" or reply.reason.startswith("redirect"):
                break
            await asyncio.sleep(min(max(0.1 * 2**attempt, reply.retry_after), _MAX_PAUSE_SECONDS))
            self.measured.repeats[reply.reason] += 1
            reply = self._join(purchase, reply, await self._attempt(purchase, body))
        return reply

    async def _first_attempt(self, purchase: Purchase, body: str) -> Reply:
        if purchase.impatience == "twice":
            self.measured.repeats["sent twice"] += 1
            first, second = await asyncio.gather(self._attempt(purchase, body), self._attempt(purchase, body))
            return self._join(purchase, first, second)
        if purchase.impatience == "hang up":
            attempt = asyncio.create_task(self._attempt(purchase, body))
            done, _ = await asyncio.wait([attempt], timeout=purchase.hang_up_after)
            if done:
                return attempt.result()
            attempt.cancel()  # aiohttp closes the connection
            self.measured.repeats["hung up"] += 1
            await asyncio.wait([attempt])
            hung_up = Reply("failed", reason="hung up", may_exist=True)
            return self._join(purchase, hung_up, await self._attempt(purchase, body))
        return await self._attempt(purchase, body)

    async def _attempt(self, purchase: Purchase, body: str) -> Reply:
        reply = read_reply(await _answer_to(self.shop.place(purchase, body)))
        self.measured.replays += reply.replayed
        return reply

    def _join(self, purchase: Purchase, first: Reply, second: Reply) -> Reply:
        reply, contradiction = join_replies(first, second)
        if contradiction:
            self.ledger.contradict(purchase.number, contradiction)
        return reply

    async def _end(self, purchase: Purchase, order_id: int, due: float) -> None:
        """Complete or cancel a pending order."""
        verb = self.shop.complete if purchase.course == "complete" else self.shop.cancel
        outcome = Outcome.MAYBE_SOLD if purchase.course == "complete" else Outcome.MAYBE_CANCELLED
        self.ledger.note(purchase.number, outcome)
        for attempt in range(_MAX_ATTEMPTS if self.plan.retries else 1):
            if attempt:
                await asyncio.sleep(0.1 * 2**attempt)
                self.measured.repeats[f"{purchase.course} again"] += 1
            answer = await _answer_to(verb(order_id))
            outcome, wrong = outcome_of_ending(purchase.course, answer)
            if wrong:
                self.ledger.contradict(purchase.number, f"the order {order_id}: {wrong}")
            if wrong or outcome in (Outcome.SOLD, Outcome.CANCELLED, Outcome.EXPIRED):
                break
        self.measured.endings.add(self.now - due)
        self.measured.endings_by_kind[_ENDINGS[outcome]] += 1
        self.ledger.note(purchase.number, outcome)


async def _answer_to(call: Awaitable[Answer]) -> Answer | NoAnswer:
    try:
        return await call
    except NoAnswer as error:
        return error


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop whose timers are exact to microseconds."""
    if sys.platform != "linux":
        return asyncio.new_event_loop()
    return asyncio.SelectorEventLoop(_ExactSelector())


class _ExactSelector(selectors.EpollSelector):
    """Waits for sockets, with timeouts exact to microseconds: those of epoll are only exact to milliseconds."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout > 0:
            select.select([self.fileno()], [], [], timeout)
            timeout = 0
        return super().select(timeout)
