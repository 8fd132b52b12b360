"""Product ids that the Store assigns."""

from service.storage.sender import CommandSender
from tests.support.balance import assert_balanced
from tests.support.shop import add_mugs, make_store


async def test_assigned_product_ids_skip_the_ids_that_clients_chose(redis: CommandSender) -> None:
    store = make_store(redis)
    for product_id in range(1, 101):
        await add_mugs(store, id=product_id)
    before = await assert_balanced(redis)
    assigned = [await add_mugs(store, name="Assigned id") for _ in range(3)]
    after = await assert_balanced(redis)
    assert after.products.items() >= before.products.items()
    assert after.products.keys() - before.products.keys() == set(assigned)
    assert len(set(assigned)) == 3
