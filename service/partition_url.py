"""The URLs of the Redis servers of a shop that is divided into partitions."""

from typing import Final

PARTITION: Final = "{partition}"
"""In a URL of Redis, this stands for the number of a partition: then each partition has a Redis of its own."""


def partition_url(url: str, partition: int) -> str:
    """Return the URL of the Redis of one partition. In a cluster, that is the same URL for all."""
    return url.replace(PARTITION, str(partition))


def partition_url_problem(url: str, partitions: int) -> str | None:
    """Return what is wrong with a URL for this number of partitions, None if it says where each of them is."""
    has_place = PARTITION in url
    if partitions == 1:
        return f"must not have {PARTITION} in it, because HOLDFAST_PARTITIONS is 1" if has_place else None
    if url.partition("://")[0].endswith("+cluster"):
        return f"must not have {PARTITION} in it: all partitions are in one cluster" if has_place else None
    if has_place:
        return None
    return f"must be the URL of a cluster, or have {PARTITION} in it, because HOLDFAST_PARTITIONS is {partitions}"
