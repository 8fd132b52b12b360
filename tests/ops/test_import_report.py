"""The messages of an import: at most twenty of one kind, in the order of the file."""

from pathlib import Path

from service.ops.catalogue_rows import BadRow
from service.ops.import_report import ImportReport
from service.storage.store import Store
from tests.support.catalogue import HEADER, import_file, write_file


async def test_at_most_twenty_messages_of_one_kind_are_shown(fake_store: Store, tmp_path: Path) -> None:
    rows = [f"{number},Mug,,{number} EUR,1\n" for number in range(1, 334)]
    rows.insert(25, "9,Mug,,5,-1\n")
    report = await import_file(fake_store, write_file(tmp_path, HEADER + "".join(rows), "p.csv"))
    lines = list(report.lines("p.csv"))
    assert report.bad == 334
    assert len(lines) == 22
    assert lines[0] == 'p.csv:2: #/price: Input should be a number, such as 19.99, not "1 EUR"'
    assert lines[20] == "... and 313 more like this"
    assert lines[21].startswith("p.csv:27: #/stock: ")


def test_twenty_messages_of_one_kind_are_followed_by_no_count() -> None:
    report = ImportReport()
    for line_number in range(20):
        report.add_bad(line_number, BadRow("wrong", "wrong"))
    assert len(list(report.lines("p.csv"))) == 20


def test_messages_are_in_the_order_of_the_file() -> None:
    report = ImportReport()
    report.add_bad(7, BadRow("bad", "bad"))
    report.add_different(3, BadRow("differs", "differs"))
    assert list(report.lines("p.csv")) == ["p.csv:3: differs", "p.csv:7: bad"]
    assert (report.bad, report.different, report.passed) == (1, 1, False)


def test_a_file_with_very_many_kinds_of_mistakes_has_a_bounded_number_of_messages() -> None:
    report = ImportReport()
    for line_number in range(100_000):
        report.add_bad(line_number, BadRow(f"wrong {line_number}", f"wrong {line_number}"))
    assert len(report.messages) <= 120
    assert len(report.counts) <= 101
    assert report.bad == 100_000
    assert list(report.lines("p.csv"))[-1] == "... and 99,880 more like this"
