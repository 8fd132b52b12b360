"""Numbers in .csv files: decimal point and decimal comma, and no number that could mean two things."""

from decimal import Decimal

import pytest

from service.ops.csv_numbers import DecimalSign, explain_number, read_number


@pytest.mark.parametrize(
    ("text", "decimal", "number"),
    [
        ("19.99", None, Decimal("19.99")),
        ("19,99", None, Decimal("19.99")),
        ("5,0", None, 5),
        (" 19,99 ", None, Decimal("19.99")),
        ("1234,5", None, Decimal("1234.5")),
        ("1234.500", None, Decimal("1234.500")),
        ("0.070", None, Decimal("0.070")),
        ("0.000", None, 0),
        ("-5,00", None, -5),
        ("12", None, 12),
        ("1e2", None, 100),
        ("19,99", ",", Decimal("19.99")),
        ("1,234", ",", Decimal("1.234")),
        ("5", ",", 5),
        ("1.234", ".", Decimal("1.234")),
        ("1.000", ".", 1),
    ],
)
def test_a_number_with_one_meaning_is_read(text: str, decimal: DecimalSign | None, number: object) -> None:
    assert read_number(text, decimal) == number


@pytest.mark.parametrize(
    ("text", "decimal"),
    [
        *(
            (text, None)
            for text in ("1,234", "1.234", "1.000", "12.345", "999,999", "1.234,50", "1,234.50", "1.234.567")
        ),
        *(
            (text, None)
            for text in ("1 234,50", "1\u00a0234,50", "1\u202f234,50", "1'234.50", "1\u2019234.50", "1,23,456")
        ),
        *((text, None) for text in ("5 EUR", "5,", ",5", "5,123", "5,1234", "1,2,3", "", "-", "0,123", "5\udcff")),
        *((text, ",") for text in ("19.99", "1.234", "1.234,50", "1,2,3", "1,234,567", "5 EUR")),
        *((text, ".") for text in ("19,99", "1,234", "1,234.50", "1.234.567")),
    ],
)
def test_a_cell_that_is_no_number_or_could_mean_two_stays_text(text: str, decimal: DecimalSign | None) -> None:
    assert read_number(text, decimal) == text


@pytest.mark.parametrize(
    ("text", "decimal", "words"),
    [
        ("1,234", None, "(if the comma begins decimals, give --decimal ,)"),
        ("1.234", None, "(if the point begins decimals, give --decimal .)"),
        ("0,123", None, "at most two decimals"),
        ("1.234,50", None, "no thousands separators"),
        ("1 234,50", None, "no thousands separators"),
        ("1.234,50", ",", "no thousands separators"),
        ("1,234.50", ".", "no thousands separators"),
        ("19.99", ",", "a decimal comma, as --decimal says"),
        ("19,99", ".", "a decimal point, as --decimal says"),
        ("5 EUR", None, None),
        ("5 EUR", ",", None),
        ("", None, None),
    ],
)
def test_the_message_says_what_is_wrong_with_the_separators(
    text: str, decimal: DecimalSign | None, words: str | None
) -> None:
    message = explain_number("price", text, decimal)
    assert (message is None) if words is None else (message is not None and words in message)


def test_a_whole_number_has_no_decimals_in_its_message() -> None:
    assert explain_number("stock", "1.000", None) == (
        "Input should have no thousands separators (if the point begins decimals, give --decimal .)"
    )
