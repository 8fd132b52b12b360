"""Fixtures for the tests of service/ops."""

import pytest

from service.storage.sender import CommandSender
from service.storage.store import Store
from tests.support.audited_shop import AuditedShop, fill, open_shop
from tests.support.fake_redis import FakeRedis
from tests.support.shop import make_store


@pytest.fixture
async def shop(redis: CommandSender) -> AuditedShop:
    """A filled shop on both kinds of Redis."""
    return await fill(open_shop(redis))


@pytest.fixture
def fake_store() -> Store:
    """A Store on fakeredis only, for tests about files."""
    return make_store(FakeRedis())
