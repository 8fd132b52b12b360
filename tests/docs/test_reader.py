"""The reader of the documents, and the differences that it accepts between a printed answer and a real answer."""

from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, Block, read_blocks, read_steps
from tests.docs.varying import Values


def steps(*lines: str) -> list[tuple[str, list[str]]]:
    block = Block(ROOT / "README.md", 10, "console", "", list(lines))
    return [(step.command, step.expected) for step in read_steps(block)]


def test_lines_below_a_command_are_its_answer() -> None:
    assert steps("$ one", "1", "", "2", "$ two") == [("one", ["1", "", "2"]), ("two", [])]


def test_a_command_goes_on_after_a_backslash_and_in_quotes() -> None:
    assert steps("$ one \\", "  two", "1") == [("one \\\n  two", ["1"])]
    assert steps("$ one 'a", "b'", "1") == [("one 'a\nb'", ["1"])]


def test_a_command_goes_on_to_the_end_of_its_here_document() -> None:
    assert steps("$ cat <<'END'", "$ text", "END", "1") == [("cat <<'END'\n$ text\nEND", ["1"])]


def test_a_key_press_is_a_step_of_its_own() -> None:
    assert steps("$ one", "1", "^C", "2") == [("one", ["1"]), ("^C", ["2"])]


def test_a_block_that_begins_with_an_answer_is_an_error() -> None:
    with pytest.raises(AssertionError, match=r"README.md:11: a command begins with"):
        steps("1", "$ one")


def test_blocks_have_their_language_and_note(tmp_path: Path) -> None:
    path = tmp_path / "x.md"
    path.write_text("a\n```console not-run: why\n$ b\n```\n````text\n```\n````\n")
    assert [block[1:] for block in read_blocks(path)] == [
        (2, "console", "not-run: why", ["$ b"]),
        (5, "text", "", ["```"]),
    ]


@pytest.mark.parametrize(
    ("printed", "actual"),
    [
        ('"2026-11-26T01:20:50.348Z"', '"2027-01-01T00:00:00.001Z"'),
        ("date: Thu, 26 Nov 2026 01:20:50 GMT", "date: Fri, 01 Jan 2027 00:00:00 GMT"),
        ('"1795656145204-0"', '"1800000000000-12"'),
        ('"1795656145204"', '"1800000000000"'),
        ("x-request-id: 7ff8f463-4", "x-request-id: 00000000-1f"),
        ("process [4711]", "process [1]"),
        ('"ms": 1.23', '"ms": 123.4'),
    ],
)
def test_a_different_value_of_the_same_form_is_accepted(printed: str, actual: str) -> None:
    assert Values().fits([printed], [actual])


@pytest.mark.parametrize(
    ("printed", "actual"),
    [
        ('"stock":10', '"stock":11'),
        ('"price":19.99', '"price":19.98'),
        ('"1795656145204-0"', '"1800000000000"'),
        ('"2026-11-26T01:20:50.348Z"', '"2026-11-26"'),
        ("7ff8f463-4", "7FF8F463-4"),
        ("[4711]", "[4712]"),
        ("text", "text "),
    ],
)
def test_any_other_difference_is_not_accepted(printed: str, actual: str) -> None:
    assert not Values().fits([printed], [actual])


def test_an_id_must_have_the_same_value_everywhere() -> None:
    values = Values()
    assert values.fits(["7ff8f463-4"], ["00000000-1"])
    assert values.to_real("GET 7ff8f463-4") == "GET 00000000-1"
    assert values.to_printed("00000000-1") == "7ff8f463-4"
    assert not values.fits(["7ff8f463-4"], ["00000000-2"])
    assert values.fits(["7ff8f463-5"], ["00000000-2"])


def test_three_dots_stand_for_any_lines() -> None:
    assert Values().fits(["a", "...", "d"], ["a", "b", "c", "d"])
    assert Values().fits(["a", "...", "d"], ["a", "d"])
    assert not Values().fits(["a", "...", "d"], ["a", "b"])
    assert not Values().fits(["a"], ["a", "b"])
    assert not Values().fits([], ["a"])
