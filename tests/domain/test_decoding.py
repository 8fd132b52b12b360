"""Decoding: JSON with exact numbers, and all field errors together."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.domain.decoding import pointer, read_json, validate
from service.domain.errors.request import FieldError, InvalidRequest, MalformedJson, RequestPart
from service.domain.requests import NewProduct, OrdersQuery


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("5", 5),
        ("5.0", 5),
        ("50e-1", 5),
        ("-0.0", 0),
        ("1e19", 10**19),
        ("1.00000000000000000001", Decimal("1.00000000000000000001")),
        ("90071992547409.91", Decimal("90071992547409.91")),
        ("0.1", Decimal("0.1")),
        ("1e20", Decimal("1e20")),
        ("1e999999", Decimal("1e999999")),
    ],
)
def test_number_is_read_exactly(text: str, number: int | Decimal) -> None:
    value = read_json(text.encode())
    assert value == number
    assert type(value) is type(number)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "This is not JSON: Expecting value"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": -Infinity}', "-Infinity is not JSON"),
        (b'{"a": 1, "a": 1}', "the field 'a' is given twice"),
        (b'{"a": {"b": 1, "\\u0062": 2}}', "the field 'b' is given twice"),
        (b"{" + b",".join(b'"%d": 1' % number for number in range(50)) + b"}", "an object has 50 fields"),
        (b'"\xff"', "This is not UTF-8: byte 1 cannot be read."),
        (b"[" * 60_000, "The JSON is nested too deeply."),
        (b"9" * 5000, "a number has too many digits"),
        (b"1e" + b"9" * 20, "cannot be represented"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_malformed_json_is_an_error_with_its_reason(body: bytes, reason: str) -> None:
    with pytest.raises(MalformedJson) as caught:
        read_json(body)
    assert reason in caught.value.detail()
    assert len(caught.value.detail()) < 200


_NUMBERS = st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?", fullmatch=True)
_TEXTS = st.text(max_size=8).map(json.dumps) | st.text(st.characters(exclude_categories=["Cs"]), max_size=8).map(
    lambda text: json.dumps(text, ensure_ascii=False)
)
_DOCUMENTS = st.recursive(
    _NUMBERS | _TEXTS | st.sampled_from(["true", "false", "null"]),
    lambda inner: (
        st.lists(inner, max_size=4).map(lambda items: f"[{', '.join(items)}]")
        | st.lists(st.tuples(_TEXTS, inner), max_size=8, unique_by=lambda pair: json.loads(pair[0])).map(
            lambda pairs: f"{{{', '.join(f'{name}: {value}' for name, value in pairs)}}}"
        )
    ),
    max_leaves=12,
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(_DOCUMENTS)
def test_the_fast_way_to_read_json_gives_the_same_as_the_exact_one(text: str) -> None:
    fast, exact = read_json(text.encode()), read_json(text.encode(), any_width=True)  # the latter is always exact
    assert repr(fast) == repr(exact)  # also the types: 1 and Decimal("1") are equal


@pytest.mark.parametrize(
    ("location", "text"),
    [
        ((), "#"),
        (("products", 1, "quantity"), "#/products/1/quantity"),
        (("a/b", "m~n"), "#/a~1b/m~0n"),
        (("~1",), "#/~01"),
        (("", " ", "%"), "#//%20/%25"),
        (("é", "\ud800"), "#/%C3%A9/%3F"),
    ],
)
def test_pointer_is_an_rfc_6901_pointer_as_a_uri_fragment(location: tuple[int | str, ...], text: str) -> None:
    assert pointer(location) == text


def test_valid_document_becomes_the_model() -> None:
    document = read_json(b'{"name": "Mug", "description": "", "price": 19.99, "stock": 10.0}')
    product = validate(NewProduct, document)
    assert (product.id, product.name, product.price, product.stock) == (None, "Mug", 1999, 10)


@pytest.mark.parametrize("source", ["body", "query", "row"])
def test_all_field_errors_are_reported_together_with_their_source(source: RequestPart) -> None:
    document: dict[str, Any] = {"name": "\ud800", "price": "5", "stock": -1, "colour": "red"}
    with pytest.raises(InvalidRequest) as caught:
        validate(NewProduct, document, source)
    assert set(caught.value.field_errors) == {
        FieldError("#/name", "Input should be Unicode text, without lone surrogates", source),
        FieldError("#/description", "Field is required", source),
        FieldError("#/price", "Input should be a number, such as 19.99", source),
        FieldError("#/stock", "Input should be greater than or equal to 0", source),
        FieldError("#/colour", "Unknown field: check its spelling", source),
    }
    assert caught.value.detail() == f"The {source} is not valid: see errors."


@pytest.mark.parametrize("document", [None, 5, [], "text"])
def test_document_that_is_not_an_object_is_an_error_at_its_root(document: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        validate(OrdersQuery, document)
    assert caught.value.field_errors == [FieldError("#", "Input should be an object")]
