"""A shop with several partitions, whose keys are in one Redis: the tests need no cluster for most of what it does."""

from typing import Any

from service.app import new_metrics
from service.storage import keys
from service.storage.partition import Partition, Partitions
from service.storage.partitioned import PartitionedStore
from service.storage.sender import CommandSender
from tests.support.shop import SHOP, make_store

TIMEOUT = 2.0


def make_partitioned_store(*senders: CommandSender, count: int = 4, **options: Any) -> PartitionedStore:
    """Return the Store of the shop SHOP with `count` partitions. They are shared out among the senders."""
    metrics = options.pop("metrics", None) or new_metrics()
    partitions = Partitions(count, timeout=options.pop("timeout", TIMEOUT), metrics=metrics)
    stores = [
        make_store(
            senders[number % len(senders)],
            shop=keys.partition(SHOP, number),
            metrics=metrics,
            partition=Partition(number, partitions),
            **options,
        )
        for number in range(count)
    ]
    return PartitionedStore(stores, partitions)
