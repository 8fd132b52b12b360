"""Every limit of the contract, with its unit and its reason."""

from typing import Final

MAX_BODY_BYTES: Final = 64 * 1024
"""An order of MAX_LINES lines needs less than a tenth of it."""

MAX_ID: Final = 2**53 - 1
"""Largest integer that every JSON reader keeps exact (RFC 7493, section 2.2)."""

MAX_PRICE: Final = 99_999_999_999
"""In cents: 999,999,999.99."""

MAX_TOTAL: Final = 2**53 - 1
"""In cents. From 2^53 on, doubles skip integers, and Lua and most JSON readers count in doubles."""

MAX_STOCK: Final = 1_000_000_000
"""Units of one product, in stock and held together."""

MAX_LINES: Final = 100
"""Lines of one order."""

MAX_QUANTITY: Final = 1_000_000
"""Units in one line of an order."""

MAX_NAME: Final = 200
MAX_DESCRIPTION: Final = 5_000
MAX_REASON: Final = 200
"""Characters of the reason of a stock move."""

MAX_HOLD_SECONDS: Final = 86_400
DEFAULT_HOLD_SECONDS: Final = 900

MAX_PAGE: Final = 1000
"""Items on one page."""
DEFAULT_PAGE: Final = 100

MAX_IDEMPOTENCY_KEY: Final = 255
"""Characters of an Idempotency-Key."""
