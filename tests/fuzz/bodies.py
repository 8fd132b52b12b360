"""The bodies that grammar.py sends: JSON that is nearly valid, and bytes that are not JSON."""

import json
from collections.abc import Mapping
from random import Random
from typing import Final, NamedTuple

from service.domain.limits import MAX_BODY_BYTES

ODD_VALUES: Final = (
    b"null", b"true", b"false", b"0", b"-0", b"-1", b"1.0", b"1.5", b"1e0", b"1E+2", b"1e-400", b"1e999", b"0.1e1",
    b"1e99999999999999999999", b"9" * 17, b"9" * 400, b"9" * 5000, b"0." + b"3" * 300, b"9007199254740993", b"NaN",
    b"-Infinity", b"Infinity", b"01", b"1.", b".5", b"+1", b"0x1", b"1_0", b"--1", b"'a'", b"", b"undefined", b'""',
    b'" "', b'"1"', b'"a\\u0000b"', b'"\\ud800"', b'"\\udc00\\ud800"', b'"\\ud83d\\ude00"', b'"\\x"', b'"\\u12"',
    b'"\xff\xfe"', b'"\xed\xa0\x80"', b'"\xc0\x80"', b'"a\nb"', b'"\x00"', b'"\xe2\x80\x8b"', b'"\xef\xbb\xbf"',
    b'"' + b"x" * 201 + b'"', b'"' + b"x" * 256 + b'"', b'"' + b"y" * 5001 + b'"', b'"unfinished', b'"a":1',
    b'"{}:*\\n"', b"[]", b"{}", b"[[]]", b"[1,]", b"{,}", b"[{}]", b'{"a":{"a":{"a":{}}}}', b"[" * 50 + b"]" * 50,
    b"[" * 3000, b'{"product_id":1}', b'[{"product_id":1,"quantity":1,"quantity":1}]',
    b'{"__proto__":{},"constructor":1}', b'"2026-11-27T09:00:00Z"', b'"9999-12-31T23:59:59-23:59"',
    b'"2026-02-30T00:00:00Z"', b'"2026-06-30T23:59:60Z"',
)  # fmt: skip
"""Take the place of values."""

_TEXTS: Final = (b'"mug"', b'"\\u00e9t\xc3\xa9"', b'"a:b {c} *"', b'"\xe2\x98\x95"', b'"' + b"n" * 200 + b'"')
_IDS: Final = (b"1", b"2", b"3", b"4", b"1.0", b"2e0")
_COUNTS: Final = (b"1", b"2", b"5", b"9", b"1000000")
_MOMENTS: Final = (b'"2020-11-27T09:00:00Z"', b'"2099-01-01T00:00:00+01:00"', b"null")
_LINES: Final = (
    b'[{"product_id":1,"quantity":1}]',
    b'[{"product_id":2,"quantity":2},{"product_id":3,"quantity":1}]',
    b'[ {"quantity":1.0,\t"product_id":4} ,\r\n{"product_id":4,"quantity":2}]',
    b"[" + b",".join([b'{"product_id":1,"quantity":1}'] * 100) + b"]",
    b'[{"product_id":9,"quantity":1}]',
    b'[{"product_id":9007199254740991,"quantity":1000000}]',
)


class Field(NamedTuple):
    """A field of a body, with values that the service may accept. `share`: of the bodies that have it."""

    name: bytes
    values: tuple[bytes, ...]
    share: float = 1.0


_PRODUCT: Final = (
    Field(b"name", _TEXTS),
    Field(b"description", (*_TEXTS, b'""')),
    Field(b"price", (b"19.99", b"0", b"1e3", b"999999999.99", b"5.10")),
    Field(b"limit_per_customer", (b"1", b"1000000000", b"null"), 0.1),
    Field(b"on_sale_from", _MOMENTS, 0.1),
    Field(b"on_sale_until", _MOMENTS, 0.1),
)

FIELDS: Final[Mapping[tuple[str, str], tuple[Field, ...]]] = {
    ("POST", "/orders"): (
        Field(b"products", _LINES),
        Field(b"status", (b'"completed"', b'"pending"'), 0.3),
        Field(b"hold_seconds", (b"1", b"900", b"86400"), 0.1),
        Field(b"total_price", (b"19.99", b"39.98", b"59.97"), 0.05),
        Field(b"customer", _TEXTS, 0.2),
    ),
    ("POST", "/products"): (
        Field(b"id", (b"1", b"7", b"21", b"9007199254740991"), 0.9),
        *_PRODUCT,
        Field(b"stock", (b"0", b"1000", b"1000000000")),
    ),
    ("PATCH", "/products/{id}"): tuple(field._replace(share=0.3) for field in _PRODUCT),
    ("POST", "/products/{id}/stock"): (
        Field(b"change", (b"1", b"-1", b"5", b"-1000000000"), 0.8),
        Field(b"count", (b"0", b"500000000"), 0.2),
        Field(b"reason", _TEXTS),
    ),
    ("PATCH", "/orders/{id}"): (Field(b"hold_seconds", (b"1", b"60", b"86400")),),
    ("POST", "/orders/{id}/returns"): (
        Field(b"products", _LINES),
        Field(b"restock", (b"true", b"false"), 0.5),
        Field(b"reason", _TEXTS, 0.5),
    ),
}
"""What each call with a body takes. A test compares the names with the models of the service."""


class Body(NamedTuple):
    """A body. `is_whole`: it still has all that was added, so the reference of an order is in it."""

    data: bytes
    is_whole: bool


def make_body(rng: Random, fields: tuple[Field, ...], reference: str) -> Body:
    """Return a body for a call. `reference`: a text that tells this order from all others; it may be empty."""
    if rng.random() < 0.02:
        return Body(_not_json(rng), is_whole=False)
    members = [
        (field.name, rng.choice(field.values if rng.random() > 0.06 else ODD_VALUES))
        for field in fields
        if field.share == 1.0 or rng.random() < field.share
    ]
    if rng.random() < 0.06:
        _spoil(rng, members)
    if reference:
        members.append((b"reference", json.dumps(reference).encode()))
    colon, comma = (b":", b",") if rng.random() < 0.8 else (b" :\t", b"\r\n , ")
    body = b"{" + comma.join([b'"' + name + b'"' + colon + value for name, value in members]) + b"}"
    return Body(body, is_whole=True) if rng.random() < 0.92 else Body(mutate(rng, body), is_whole=False)


def _spoil(rng: Random, members: list[tuple[bytes, bytes]]) -> None:
    match rng.randrange(4):
        case 0 if members:
            members.append(rng.choice(members))  # twice
        case 1 if members:
            del members[rng.randrange(len(members))]
        case 2:
            members += [(b"unknown-%d" % number, b"1") for number in range(rng.choice((1, 3, 30)))]
        case _:
            members.insert(0, (rng.choice((b"", b"a/b~c", b"\\ud800", b"\xff", b"id")), rng.choice(ODD_VALUES)))


def _not_json(rng: Random) -> bytes:
    match rng.randrange(5):
        case 0:
            return b""
        case 1:
            return rng.randbytes(rng.randrange(200))
        case 2:
            return b"[" * rng.choice((10, 1000, 60_000))
        case 3:
            return b'{"a":' * rng.choice((100, 10_000)) + b"1"
        case _:
            return b'{"reason":"' + b"x" * rng.choice((1000, MAX_BODY_BYTES - 20)) + b'"}'


def mutate(rng: Random, data: bytes) -> bytes:
    """Return data with a few bytes changed, added or removed."""
    result = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at = rng.randrange(len(result) + 1)
        match rng.randrange(6):
            case 0:
                del result[at:]  # cut off
            case 1:
                del result[at : at + rng.randint(1, 4)]
            case 2:
                result[at:at] = rng.choice(
                    (b"\xef\xbb\xbf", b"\x00", b"\xff", b"\\", b'"', b"{", b"[", b",", b":", b"\r\n")
                )
            case 3:
                result[at:at] = result[at : at + rng.randint(1, 20)]  # doubled
            case 4:
                result[at : at + 1] = bytes([rng.randrange(256)])
            case _:
                result[at : at + 1] = bytes([(result[at] if at < len(result) else 0) ^ 1 << rng.randrange(8)])
    return bytes(result)
