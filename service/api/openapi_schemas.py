"""The JSON schemas of answers, for the description of the API. The tests compare them with real answers."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from service.domain.api_key import SCOPES
from service.domain.errors.base import Problem
from service.domain.limits import MAX_LINES, MAX_QUANTITY, MAX_STOCK
from service.domain.schemas import REF_TEMPLATE

Schema = dict[str, Any]

_TEXT: Final[Schema] = {"type": "string"}
_TIME: Final[Schema] = {"type": "string", "format": "date-time"}
_UNITS: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": max(MAX_LINES * MAX_QUANTITY, MAX_STOCK)}
_COUNTER: Final[Schema] = {"type": "integer", "minimum": 0}
_STOCK: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": MAX_STOCK}


def ref(name: str) -> Schema:
    """Return a reference to a schema of the document."""
    return {"$ref": REF_TEMPLATE.format(model=name)}


def _object(members: Mapping[str, Schema], optional: Iterable[str] = ()) -> Schema:
    return {
        "type": "object",
        "properties": dict(members),
        "required": [name for name in members if name not in optional],
        "additionalProperties": False,
    }


def _array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def answer_schemas(requests: Mapping[str, Schema]) -> dict[str, Schema]:
    """Return the schemas of all answers but problems. `requests`: the schemas of requests, whose limits they share."""
    product, line = requests["NewProduct"]["properties"], requests["NewOrderLine"]["properties"]
    order = requests["NewOrder"]["properties"]
    member_id, price, total = line["product_id"], product["price"], _without_null(order["total_price"])
    rules = {name: _without_null(product[name]) for name in ("limit_per_customer", "on_sale_from", "on_sale_until")}
    names = {name: _without_null(order[name]) for name in ("reference", "customer")}
    order_members = {
        "id": member_id,
        "products": _array(ref("OrderLine")),
        "total_price": total,
        "status": {"type": "string", "enum": ["pending", "completed", "cancelled", "expired"]},
        "created_at": _TIME,
        "expires_at": _TIME,
        "completed_at": _TIME,
        **names,
        "refunded": total,
    }
    return {
        "Product": _object(
            {
                "id": member_id,
                **{name: product[name] for name in ("name", "description", "price", "stock")},
                **rules,
            },
            optional=rules,
        ),
        "Products": _array(ref("Product")),
        "StockLevels": _object(
            {
                "product_id": member_id,
                **dict.fromkeys(("stock", "held", "sold", "received", "written_off"), _COUNTER),
            }
        ),
        "OrderLine": _object(
            {"product_id": member_id, "quantity": {**_UNITS, "minimum": 1}, "price": price, "returned": _UNITS},
            optional=("returned",),
        ),
        "Order": _object(order_members, optional=("expires_at", "completed_at", *names, "refunded")),
        "Orders": _array(ref("Order")),
        "Alive": _object({"status": {"const": "alive"}}),
        "Ready": _object(
            {
                "status": {"const": "ready"},
                "shops": {"type": "object", "additionalProperties": {"enum": ["ready", "not ready"]}},
            },
            optional=("shops",),
        ),
        "OpenAPI": {"type": "object", "required": ["openapi", "paths"]},
        "ProblemTypes": _array(_object({"type": _TEXT, "status": {"type": "integer"}, "title": _TEXT})),
        "ProblemType": _object(
            {
                "type": _TEXT,
                "status": {"type": "integer"},
                "title": _TEXT,
                "meaning": _TEXT,
                "remedy": _TEXT,
                "example": {"type": "object"},
            }
        ),
        "WrongField": _object(
            {"pointer": _TEXT, "detail": _TEXT, "in": {"type": "string", "enum": ["query", "header"]}}, optional=("in",)
        ),
        "UnavailableLine": _object(
            {
                "pointer": _TEXT,
                "product_id": member_id,
                "detail": _TEXT,
                "requested": _UNITS,
                "available": _STOCK,
                "limit": _STOCK,
                "already": _UNITS,
                "from": _TIME,
                "until": _TIME,
            },
            optional=("requested", "available", "limit", "already", "from", "until"),
        ),
        "ExcessLine": _object(
            {"pointer": _TEXT, "product_id": member_id, "requested": _UNITS, "returnable": _UNITS, "detail": _TEXT}
        ),
        "CurrentPrice": _object({"product_id": member_id, "price": price}),
    }


_LINES: Final[Schema] = {"errors": _array(ref("UnavailableLine"))}
_FURTHER_MEMBERS: Final[Mapping[str, Schema]] = {
    "invalid-request": {"errors": _array(ref("WrongField"))},
    **dict.fromkeys(
        ("insufficient-stock", "customer-required", "customer-limit", "not-on-sale", "stock-limit"), _LINES
    ),
    "product-not-found": _LINES,
    "return-exceeds-order": {"errors": _array(ref("ExcessLine"))},
    "price-changed": {"prices": _array(ref("CurrentPrice"))},
    "missing-scope": {"scope": {"type": "string", "enum": list(SCOPES)}},
    "missing-shop": {"shops": {"type": "array", "items": {"type": "string"}}},
    "order-cancelled": {"order": ref("Order")},
    "order-expired": {"order": ref("Order")},
}
"""What a problem has beside the members that each problem has."""


def problem_schema_name(problem: Problem) -> str:
    """Return the name of the schema of a problem: `InsufficientStock`."""
    return "".join(word.capitalize() for word in problem.name.split("-")) + "Problem"


def problem_schema(problem: Problem, root_path: str, total: Schema) -> Schema:
    """Return the schema of a problem (RFC 9457)."""
    further = dict(_FURTHER_MEMBERS.get(problem.name, {}))
    if problem.name == "price-changed":
        further["total_price"] = total
    schema = _object(
        {
            "type": {"const": f"{root_path}/problems/{problem.name}", "type": "string"},
            "title": {"const": problem.title, "type": "string"},
            "status": {"const": problem.status, "type": "integer"},
            "detail": _TEXT,
            "instance": _TEXT,
            **further,
        },
        # GET of a product and POST of an order share this type; only orders have lines.
        optional=("errors",) if problem.name == "product-not-found" else (),
    )
    return {**schema, "description": f"{problem.meaning} {problem.remedy}"}


def _without_null(schema: Schema) -> Schema:
    """Return the schema of a member that may be absent, but is never null."""
    return next(part for part in schema.get("anyOf", [schema]) if part.get("type") != "null")
