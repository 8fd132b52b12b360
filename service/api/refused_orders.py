"""What is noted of refused orders: a line in the log for each, but not for each of a storm."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, Final

import structlog
from starlette.types import Scope

from service.api.request import request_facts
from service.domain.errors.order_refusals import UnavailableLines
from service.domain.errors.refusals import Refusal
from service.domain.requests import NewOrder

log = structlog.get_logger()

LINES_PER_SECOND: Final = 100
"""Of a worker. In a flash sale nearly all orders are refused: a line for each would take longer than the refusal."""


class RefusalLog:
    """Logs the refused orders of a worker. Of a storm it logs the first ones of each second, and counts the others."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock`: in seconds."""
        self._clock = clock
        self._second_began_at = clock()
        self._lines = 0
        self._left_out = 0

    def note(self, scope: Scope, new: NewOrder, refusal: Refusal) -> None:
        """Log why an order was refused. The Idempotency-Key is not logged: it may be a secret of the client."""
        now = self._clock()
        if now - self._second_began_at >= 1:
            self._second_began_at, self._lines = now, 0
        self._lines += 1
        if self._lines <= LINES_PER_SECOND:
            _log_refusal(scope, new, refusal)
            return
        if self._left_out == 0:
            asyncio.get_running_loop().call_later(1, self._log_left_out)
        self._left_out += 1

    def _log_left_out(self) -> None:
        log.info("refused_orders_not_logged", count=self._left_out)
        self._left_out = 0


def _log_refusal(scope: Scope, new: NewOrder, refusal: Refusal) -> None:
    facts: dict[str, Any] = {**request_facts(scope), "reason": refusal.problem.name}
    if isinstance(refusal, UnavailableLines):
        facts["products"] = [
            {"product_id": line.product_id, "requested": line.requested, **line.obstacle._asdict()}
            for line in refusal.lines
        ]
    if new.customer is not None:
        facts["customer"] = new.customer
    if new.reference is not None:
        facts["reference"] = new.reference
    log.info("order_refused", **facts)
