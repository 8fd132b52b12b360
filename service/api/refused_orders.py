"""What is noted of each refused order: one line in the log."""

from typing import Any

import structlog
from starlette.types import Scope

from service.api.request import request_facts
from service.domain.errors.order_refusals import UnavailableLines
from service.domain.errors.refusals import Refusal
from service.domain.requests import NewOrder

log = structlog.get_logger()


def note_refusal(scope: Scope, new: NewOrder, refusal: Refusal) -> None:
    """Log why an order was refused. The Idempotency-Key is not logged: it may be a secret of the client."""
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
