"""ETags of products, and conditional requests (RFC 9110, section 13)."""

import re
from typing import Final

from starlette.responses import Response

from service.api.request import Request
from service.api.responses import JsonResponse, cacheable, hash_of
from service.domain.product import Product
from service.storage.stock import StockLevels

_ENTITY_TAG: Final = re.compile(r'(W/)?"([^"]*)"')


def product_response(product: Product) -> Response:
    """Return a product with its ETag: the version of its catalogue part, a hyphen, and its stock.

    So If-Match can be compared with the part that a request is about: a sale does not disturb a change of the price.
    """
    return cacheable(JsonResponse(product.json()), f"{product.catalogue_version()}-{product.stock}")


def stock_response(product_id: int, levels: StockLevels) -> Response:
    """Return the stock of a product with its ETag, which ends in the stock, too."""
    members = ",".join([f'"{name}":{units}' for name, units in levels._asdict().items()])
    response = JsonResponse(f'{{"product_id":{product_id},{members}}}')
    return cacheable(response, f"{hash_of(response.body)}-{levels.stock}")


def expected_versions(request: Request) -> frozenset[str] | None:
    """Return the catalogue versions that a product may have, by If-Match. None: any."""
    parts = _parts_of_if_match(request)
    return None if parts is None else frozenset(version for version, _ in parts)


def expected_stocks(request: Request) -> frozenset[int] | None:
    """Return the numbers of units that may be in stock, by If-Match with the ETag of a product or of its stock."""
    parts = _parts_of_if_match(request)
    return None if parts is None else frozenset(stock for _, stock in parts)


def _parts_of_if_match(request: Request) -> list[tuple[str, int]] | None:
    """Return the two parts of each ETag in If-Match. None: there is no If-Match, or it is `*`, anything that exists.

    A weak ETag, or one that no product has, never matches: comparison is strong (RFC 9110, section 13.1.1).
    """
    values = [value for name, value in request.scope["headers"] if name == b"if-match"]
    text = b",".join(values).decode("latin-1").strip()
    if not values or text == "*":
        return None
    tags = [tag for weak, tag in _ENTITY_TAG.findall(text) if not weak]
    return [(match[1], int(match[2])) for tag in tags if (match := re.fullmatch("([0-9a-f]{32})-([0-9]{1,10})", tag))]
