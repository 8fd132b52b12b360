"""Money: cents, and the decimal that JSON and Redis show."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain.limits import MAX_TOTAL
from service.domain.money import Cents, amount_json, format_cents, parse_cents

AMOUNTS = st.integers(0, MAX_TOTAL).map(Cents)


@pytest.mark.parametrize(
    ("cents", "text"),
    [
        (0, "0.00"),
        (1, "0.01"),
        (10, "0.10"),
        (99, "0.99"),
        (100, "1.00"),
        (1999, "19.99"),
        (MAX_TOTAL, "90071992547409.91"),
    ],
)
def test_cents_are_formatted_with_two_decimals(cents: int, text: str) -> None:
    assert format_cents(Cents(cents)) == text


@pytest.mark.parametrize(
    ("text", "cents"),
    [("19.99", 1999), ("19.9", 1990), ("19", 1900), ("007.50", 750), ("0.05", 5), ("90071992547409.91", MAX_TOTAL)],
)
def test_amount_may_have_no_decimals_or_up_to_two(text: str, cents: int) -> None:
    assert parse_cents(text) == cents
    assert amount_json(text) == format_cents(Cents(cents))


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        ".",
        ".5",
        "5.",
        "1.005",
        "-1",
        "+1",
        "1e2",
        "1,5",
        "1_0",
        " 1",
        "1 ",
        "1\n",
        "nan",
        "0x10",
        "\u0661",
        "1\u0661.50",
    ],
)
def test_text_that_is_not_an_amount_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="unreadable amount"):
        parse_cents(text)
    with pytest.raises(ValueError, match="unreadable amount"):
        amount_json(text)


def test_error_about_a_long_text_shows_only_its_beginning() -> None:
    with pytest.raises(ValueError, match="unreadable amount") as caught:
        parse_cents("x" * 5000)
    assert len(str(caught.value)) < 100


@given(AMOUNTS)
def test_parsing_undoes_formatting(cents: Cents) -> None:
    text = format_cents(cents)
    assert Decimal(text) * 100 == cents
    assert parse_cents(text) == cents
