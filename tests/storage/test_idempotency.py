"""What an Idempotency-Key remembers: fingerprints of requests, and refusals for a day."""

import pytest

from service.domain.errors.refusals import InsufficientStock
from service.storage import keys
from service.storage.idempotency import REFUSAL_MS
from service.storage.sender import CommandSender
from tests.support.shop import SHOP, add_mugs, make_store, new_order


async def test_the_store_remembers_a_refusal_for_a_day(link: CommandSender) -> None:
    store = make_store(link)
    mugs = await add_mugs(store, stock=1000)
    with pytest.raises(InsufficientStock):
        await store.orders.place(new_order((mugs, 1001)), "k-1")
    left = await link.send("PTTL", keys.idempotency(SHOP, "k-1"))
    assert REFUSAL_MS - 60_000 < left <= REFUSAL_MS == 86_400_000
