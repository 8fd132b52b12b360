"""Refusals that an Idempotency-Key remembers for 24 hours: what they have in common.

Redis stores the reply of the script, and `service/storage/refusals.py` reads it.
"""

from dataclasses import dataclass
from typing import ClassVar

from service.domain.errors.base import Problem
from service.domain.errors.refusals import Refusal
from service.domain.limits import MAX_STOCK

INSUFFICIENT_STOCK = Problem(
    "insufficient-stock",
    409,
    "There is not enough stock",
    "The request asks for more units than are in stock. `errors` lists each product that has too little stock, "
    "with what was `requested` and what is `available`. No stock was taken. The same Idempotency-Key gets this "
    "response for 24 hours.",
    "Offer the customer what is available. To try again, use a new Idempotency-Key.",
)


STOCK_LIMIT = Problem(
    "stock-limit",
    409,
    "There would be too much stock",
    f"A product has at most {MAX_STOCK:,} units in stock and held together. Nothing was changed. The same "
    "Idempotency-Key gets this response for 24 hours.",
    "Correct the number of units, and use a new Idempotency-Key.",
)


@dataclass(eq=False)
class RememberedRefusal(Refusal):
    """A refusal that its Idempotency-Key remembers for 24 hours. `replayed`: an earlier request with the key got it."""

    replayed: bool

    reply_word: ClassVar[str]
    """First word of the script's reply. Redis stores such replies for 24 hours, so these words must not change."""

    def headers(self) -> dict[str, str]:
        return {"Idempotent-Replayed": "true"} if self.replayed else {}
