"""The limits of the API, with their units.

Where no reason is given, a limit only keeps requests, texts and scripts short.
"""

from typing import Final

MAX_BODY_BYTES: Final = 64 * 1024
"""An order of MAX_LINES lines needs less than a tenth of this."""

MAX_HEAD_BYTES: Final = 64 * 1024
"""The request line and header fields: four times what most proxies accept."""

MAX_HEADER_FIELDS: Final = 128
"""Header fields of a request. Each takes about 200 bytes of memory, even if it is empty."""

MAX_ID: Final = 2**53 - 1
"""Largest integer that every JSON parser keeps exact (RFC 7493, section 2.2)."""

MAX_PRICE: Final = 99_999_999_999
"""In cents: 999,999,999.99. A double, the number type of Lua, is exact to far below half a cent up to here."""

MAX_TOTAL: Final = 2**53 - 1
"""In cents. From 2^53 on, doubles skip integers, and Lua and most JSON parsers use doubles."""

MAX_STOCK: Final = 1_000_000_000
"""Units of one product, in stock and held together. Below 2^31, so 32 bits are enough for a client."""

MAX_LINES: Final = 100
"""Order lines of one order. Redis executes nothing else while the script of an order runs."""

MAX_QUANTITY: Final = 1_000_000
"""Units in one order line of a request."""

MAX_NAME: Final = 200
"""Characters of the name of a product."""

MAX_DESCRIPTION: Final = 5_000
"""Characters of the description of a product."""

MAX_REASON: Final = 200
"""Characters of the reason of a stock change or a return."""

MAX_REFERENCE: Final = 255
"""Characters of the reference and of the customer of an order. They are part of Redis keys."""

MAX_HOLD_SECONDS: Final = 86_400
"""One day. Also the longest time from the creation of an order to the end of its hold, however often it is extended."""

DEFAULT_HOLD_SECONDS: Final = 900
"""15 minutes."""

MAX_PAGE: Final = 1000
"""Items on one page."""

DEFAULT_PAGE: Final = 100
"""Items on one page, if the query names no `limit`."""

MAX_IDEMPOTENCY_KEY: Final = 255
"""Characters of an Idempotency-Key: as many as Stripe's API accepts."""
