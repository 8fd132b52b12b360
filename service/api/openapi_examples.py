"""Examples in the description of the API: bodies of requests and of answers. The tests send them and compare them."""

from typing import Any, Final

_LINE: Final = {"product_id": 1, "quantity": 2}

BODIES: Final[dict[str, dict[str, Any]]] = {
    "place_order": {
        "completed": {"products": [_LINE]},
        "pending": {"products": [_LINE], "status": "pending", "hold_seconds": 600},
        "with all members": {
            "products": [_LINE],
            "status": "pending",
            "hold_seconds": 600,
            "total_price": 39.98,
            "reference": "cart-17",
            "customer": "anna",
        },
    },
    "add_product": {
        "a mug": {"name": "Mug", "description": "Holds coffee.", "price": 19.99, "stock": 10},
        "two per customer": {
            "name": "Ticket",
            "description": "Row 1",
            "price": 45,
            "stock": 100,
            "limit_per_customer": 2,
            "on_sale_from": "2026-11-27T09:00:00+01:00",
            "on_sale_until": "2026-11-28T09:00:00+01:00",
        },
    },
    "change_product": {"another price": {"price": 18.5}, "no limit": {"limit_per_customer": None}},
    "change_stock": {
        "a delivery": {"change": 24, "reason": "delivery 7"},
        "damaged": {"change": -1, "reason": "damaged"},
        "counted": {"count": 30, "reason": "stocktaking"},
    },
    "extend_hold": {"ten more minutes": {"hold_seconds": 600}},
    "return_products": {
        "in stock again": {"products": [{"product_id": 1, "quantity": 1}]},
        "written off": {"products": [{"product_id": 1, "quantity": 1}], "restock": False, "reason": "broken"},
    },
}
"""By the name of the handler."""

_PRODUCT: Final = {"id": 1, "name": "Mug", "description": "Holds coffee.", "price": 19.99, "stock": 10}

_ORDER: Final = {
    "id": 41,
    "products": [{"product_id": 1, "quantity": 2, "price": 19.99}],
    "total_price": 39.98,
    "status": "completed",
    "created_at": "2026-11-26T09:30:00.123Z",
}

ANSWERS: Final[dict[str, Any]] = {
    "Product": _PRODUCT,
    "Products": [_PRODUCT],
    "Order": _ORDER,
    "Orders": [_ORDER],
    "StockLevels": {"product_id": 1, "stock": 10, "held": 0, "sold": 2, "received": 12, "written_off": 0},
    "Alive": {"status": "alive"},
    "Ready": {"status": "ready"},
}
"""By the name of the schema."""

EVENTS: Final = """retry: 1000

id: 1795684200123-0
event: order_placed
data: {"id":"1795684200123-0","event":"order_placed","order":41,"status":"completed","total_price":39.98,"products":[{"product_id":1,"quantity":2,"price":19.99}]}

"""  # noqa: E501 - an event is one line
"""What a client of /events receives."""
