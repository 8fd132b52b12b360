"""What a worker knows of products that it has listed, until Redis says that they have changed."""

from collections.abc import Callable, Iterable, Sequence
from enum import Enum, auto
from typing import Any, Final, Generic, TypeVar

from service.domain.product import ListedProduct

T = TypeVar("T")

MAX_KEPT_BYTES: Final = 64 * 2**20
"""Memory for products of one connection, about: 100,000 products with short texts need 45 MB.

If it is full, no further products are kept. Removing a product would not help Redis: it would go on tracking the
product, in 130 bytes.
"""

_BYTES_PER_PRODUCT: Final = 300
"""Memory of a product in addition to its JSON text: its key, the objects of Python, and the place in the table."""


class Tracking(Enum):
    """Whether Redis says over a connection what has changed."""

    OFF = auto()
    """It was not asked to: no list was read yet."""
    ASKED = auto()
    ON = auto()
    REFUSED = auto()


def _size(product: ListedProduct) -> int:
    return len(product.json) + _BYTES_PER_PRODUCT


class TrackedProducts(Generic[T]):
    """The products that were read over one connection, and have not changed since. T: what is kept of each.

    Redis says over the same connection which of them have changed, by whomever, and it does so before it replies to
    any command that it executes later. So after such a reply, all that is still here is as it was at that command.
    https://valkey.io/topics/client-side-caching/

    When the connection ends, this object ends with it: nobody would hear of changes any more.
    """

    def __init__(
        self,
        max_bytes: int = MAX_KEPT_BYTES,
        *,
        size: Callable[[Any], int] = _size,
        on_forget: Callable[[Iterable[str] | None], None] | None = None,
    ) -> None:
        """Know nothing yet.

        `max_bytes`: the memory after which there is no room. `size`: the memory of what is kept of a product.
        `on_forget` is called with the keys of what is forgotten, and of what was not known; None: everything.
        """
        self.tracking = Tracking.OFF
        self.on_forget = on_forget
        self._size = size
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: dict[str, T] = {}
        self._expected: dict[str, object] = {}

    @property
    def has_room(self) -> bool:
        """Whether further products may be kept."""
        return self._bytes < self._max_bytes

    def find(self, keys: Sequence[str]) -> list[T | None]:
        """Return the products with these keys. None: it must be read."""
        return list(map(self._kept.get, keys))

    def expect(self, keys: Iterable[str]) -> object:
        """Note that products are going to be read. Return a mark for `keep`.

        If several callers read a product at the same time, only the first may keep it. If the last did, a product that
        is read all the time would never be kept.
        """
        mark = object()
        for key in keys:
            self._expected.setdefault(key, mark)
        return mark

    def keep(self, mark: object, products: Iterable[tuple[str, T | None]]) -> None:
        """Keep products that were read, by key; None: there is no such product.

        A product that Redis has named since `expect` is left out: it may have changed after it was read.
        """
        for key, product in products:
            if self._expected.get(key) is mark:
                del self._expected[key]
                self._drop(key)
                if product is not None:
                    self._kept[key] = product
                    self._bytes += self._size(product)

    def abandon(self, mark: object, keys: Iterable[str]) -> None:
        """Forget that these products were going to be read."""
        for key in keys:
            if self._expected.get(key) is mark:
                del self._expected[key]

    def forget(self, keys: Iterable[str] | None) -> None:
        """Forget what has changed. None: everything."""
        if self.on_forget is not None:
            self.on_forget(keys)
        if keys is None:
            self._kept.clear()
            self._expected.clear()
            self._bytes = 0
            return
        for key in keys:
            self._expected.pop(key, None)
            self._drop(key)

    def _drop(self, key: str) -> None:
        product = self._kept.pop(key, None)
        if product is not None:
            self._bytes -= self._size(product)
