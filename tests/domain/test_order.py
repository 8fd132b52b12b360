"""An order: the text of its lines in Redis, and where its units are in each status."""

import pytest
from hypothesis import given

from service.domain.money import Cents
from service.domain.order import UNITS_IN, OrderLine, OrderStatus, lines_json, parse_lines
from tests.support.orders import lines_text, order_lines


def as_json(lines: tuple[OrderLine, ...]) -> str:
    return ",".join([line.json() for line in lines])


def test_lines_are_parsed_in_their_order() -> None:
    assert parse_lines("7: 2 x 19.99\n3: 100000000 x 0.00\n9007199254740991: 1 x 5") == (
        OrderLine(7, 2, Cents(1999)),
        OrderLine(3, 100_000_000, Cents(0)),
        OrderLine(9_007_199_254_740_991, 1, Cents(500)),
    )


@given(order_lines())
def test_lines_as_the_script_writes_them_are_parsed_exactly(lines: tuple[OrderLine, ...]) -> None:
    text = lines_text(lines)
    assert parse_lines(text) == lines
    assert lines_json(text) == as_json(lines)


@pytest.mark.parametrize(
    "text", ["7: 2 x 5", "7: 2 x 5.5\n8: 1 x 1.00", "007: 02 x 1.00", "7: 2 x 01.50", "0: 0 x 0.00"]
)
def test_lines_that_no_script_writes_are_shown_like_others(text: str) -> None:
    assert lines_json(text) == as_json(parse_lines(text))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "7",
        "7: 2",
        "7: 2 x",
        "7: 2 x 19.999",
        "7: 2 x -1.00",
        "7: -2 x 1.00",
        "7: 2.0 x 1.00",
        "7:2 x 1.00",
        "7: 2 X 1.00",
        " 7: 2 x 1.00",
        "7: 2 x 1.00 ",
        "7: 2 x 1.00\n",
        "7: 2 x 1.00\r\n8: 1 x 1.00",
        "7: 2 x 1.00\n8: 1 x",
        "7: \u0662 x 1.00",
        "7: 1\u0662 x 1.00",
        "7: 1e+15 x 1.00",
    ],
)
def test_text_that_is_not_order_lines_is_an_error(text: str) -> None:
    for read in (parse_lines, lines_json):
        with pytest.raises(ValueError, match="unreadable lines of an order"):
            read(text)


def test_error_about_a_long_text_shows_only_its_beginning() -> None:
    with pytest.raises(ValueError, match="unreadable lines of an order") as caught:
        parse_lines("x" * 5000)
    assert len(str(caught.value)) < 200


def test_status_of_an_order_decides_which_counter_includes_its_units() -> None:
    assert UNITS_IN == {"pending": "held", "completed": "sold", "cancelled": None, "expired": None}
    assert UNITS_IN.keys() == set(OrderStatus)
