"""What is searched: a shop, the client requests that it gets, and what may go wrong."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.model_check.partitions.steps import Add, Change, Move, Partition, Place, Result, Withdraw


@dataclass(frozen=True, kw_only=True)
class ClientRequest:
    """An order or a stock change, and the partition to which its Idempotency-Key leads."""

    partition: int
    request: Place | Move

    @property
    def needs(self) -> tuple[tuple[int, int], ...]:
        """The products of which it needs units, and how many."""
        if isinstance(self.request, Place):
            return self.request.lines
        return ((self.request.product, -self.request.change),) if self.request.change < 0 else ()


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """A shop that is searched."""

    name: str
    stock: tuple[tuple[int | None, ...], ...]
    """The units at the beginning, by partition and product. None: the product is not there yet."""
    requests: tuple[ClientRequest, ...] = ()
    workers: tuple[int, ...] | None = None
    """The client request on which each worker works: a repeated request has several. None: each has one worker."""
    changes: tuple[Add | Change | Withdraw, ...] = ()
    """Changes of the catalogue, each with a worker of its own."""
    attempts: int = 1
    """How often an order looks at all partitions at most."""
    gives: int = 0
    """How often units are given away at most, late and repeated requests included."""
    sweepers: int = 1
    failovers: int = 0
    waits: str = "all"
    """After which steps the workers WAIT for the replica: all, writes or none."""
    no_wait_after: tuple[str, ...] = ()
    """Steps without WAIT nevertheless."""
    clocks: str = "right"
    """right; behind: the clock of each primary after a failover is behind; always behind: that of all partitions.

    A clock that is behind is as far behind as can be: it is never above an id that was given out."""
    holds_expire: bool = False
    loses_replies: bool = True
    """Whether the reply to a transfer may be lost. With False, fewer states."""
    guesses: bool = False
    """Whether an order asks the home of a product before it looks at all partitions."""
    spreads: bool = False
    """Whether a partition gives more than is needed: a share of what it has."""
    silent: int | None = None
    """A partition that may not answer a look. The worker goes on without it then."""
    looks: int = 1
    """How many looks must find the same before a request is refused."""
    laws: str = "all"
    """all; units: no unit is lost or doubled, and transfers end; lost: no unit is lost."""
    dropped: str = ""
    """The safeguard of the workers that this shop does not have."""
    steps: Mapping[type, Callable[[Partition, Any, int], Result]] = field(default_factory=dict)
    """Scripts that do something else in this shop: the function for each class of requests."""
    sends_after_take: Callable[[Any], tuple[Any, ...]] | None = None
    """What is sent after units were taken in, besides the message that settles them."""

    @property
    def drives(self) -> tuple[int, ...]:
        """The client request of each worker."""
        return tuple(range(len(self.requests))) if self.workers is None else self.workers

    @property
    def is_faithful(self) -> bool:
        """Whether all scripts do what they do in the product."""
        return not self.steps
