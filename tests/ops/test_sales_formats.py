"""What was sold, as a table, CSV and JSON."""

import csv
import json
from decimal import Decimal

import pytest

from service.domain.times import parse_timestamp
from service.ops.sales import Grouping, SalesReport, Sums
from service.ops.sales_formats import csv_lines, json_lines, table_lines

NOON = parse_timestamp("2026-11-26T12:00:00Z")
HOUR_MS = 3_600_000


def report_of(by: Grouping, **names: str) -> SalesReport:
    """Return a report of three sales, and of one in the next row. `names`: those of products, p12="Pot"."""
    report = SalesReport(by)
    first, second = Sums(3, 1_234_567, 9_007_199_254_740_993, 1, 7), Sums(1, 2, 4000)
    report.total = Sums(4, 1_234_569, 9_007_199_254_744_993, 1, 7)
    period = NOON // (24 * HOUR_MS if by == "day" else HOUR_MS)
    if by != "total":
        report.groups.update(zip((1, 12) if by == "product" else (period, period + 1), (first, second), strict=True))
    report.names.update({1: "Mug", **{int(key[1:]): name for key, name in names.items()}})
    return report


def test_a_table_is_aligned_and_ends_with_the_sums() -> None:
    assert list(table_lines(report_of("hour"))) == [
        "period             orders      units                revenue  returned  refunded",
        "2026-11-26T12:00Z       3  1,234,567  90,071,992,547,409.93         1      0.07",
        "2026-11-26T13:00Z       1          2                  40.00         0      0.00",
        "total                   4  1,234,569  90,071,992,547,449.93         1      0.07",
    ]
    assert list(table_lines(report_of("total"))) == [
        "period  orders      units                revenue  returned  refunded",
        "total        4  1,234,569  90,071,992,547,449.93         1      0.07",
    ]


def test_names_keep_a_table_aligned() -> None:
    # The character of the name that moves the cursor is replaced. The Chinese characters take two columns each.
    assert [line[:-54] for line in table_lines(report_of("product", p12="\x1b[H杯子 e\u0301"))] == [
        "product_id  name       orders",
        "         1  Mug             3",
        "        12  \ufffd[H杯子 e\u0301       1",
        "     total                  4",
    ]
    [_, _, line, _] = table_lines(report_of("product", p12="x" * 41))
    assert f"  {'x' * 39}…  " in line


def test_csv_has_plain_numbers_and_no_sums() -> None:
    assert list(csv_lines(report_of("product", p12='Pot, "big"'))) == [
        "product_id,name,orders,units,revenue,returned,refunded",
        "1,Mug,3,1234567,90071992547409.93,1,0.07",
        '12,"Pot, ""big""",1,2,40.00,0,0.00',
    ]
    assert [row[0] for row in csv.reader(csv_lines(report_of("day")))] == ["period", "2026-11-26", "2026-11-27"]


def test_json_is_an_array_with_one_row_per_line_and_exact_amounts() -> None:
    lines = list(json_lines(report_of("product", p12='Löffel "é"\n')))
    assert lines == [
        "[",
        '{"product_id":1,"name":"Mug","orders":3,"units":1234567,'
        '"revenue":90071992547409.93,"returned":1,"refunded":0.07},',
        '{"product_id":12,"name":"Löffel \\"é\\"\\n","orders":1,"units":2,'
        '"revenue":40.00,"returned":0,"refunded":0.00}',
        "]",
    ]
    parsed = json.loads("\n".join(json_lines(report_of("total"))), parse_float=Decimal)
    assert parsed[0]["period"] == "total"
    assert parsed[0]["revenue"] == Decimal("90071992547449.93")


def test_a_product_without_a_name_has_an_empty_cell_or_null() -> None:
    report = report_of("product")
    assert list(csv_lines(report))[2].startswith("12,,1,")
    assert json.loads("".join(json_lines(report)))[1]["name"] is None
    assert "        12             1  " in list(table_lines(report))[2]


@pytest.mark.parametrize("by", ["total", "product", "day", "hour"])
def test_without_sales_there_is_no_row(by: Grouping) -> None:
    report = SalesReport(by)
    assert list(table_lines(report)) == ["There were no sales."]
    assert len(list(csv_lines(report))) == 1
    assert list(json_lines(report)) == ["[]"]
