"""lua/*.lua as text: the header agrees with the code and with the Python function that returns the arguments."""

import inspect
import re
from collections.abc import Callable
from typing import NamedTuple

import pytest

from service.domain.order import OrderStatus
from service.storage import (
    archive,
    catalogue_pushes,
    client,
    expired_holds,
    holds,
    inspection,
    layout,
    orders,
    partition,
    products,
    recent_orders,
    restored,
    returns,
    stock,
    transfers,
)
from service.storage.scripts import load_scripts

SOURCES = {name: script.source for name, script in load_scripts().items()}

ARGS: dict[str, Callable[..., tuple[str | int, ...]]] = {
    "add_product": products.add_product_args,
    "archive_orders": archive.archive_orders_args,
    "audit_indexes": inspection.audit_indexes_args,
    "audit_orders": inspection.audit_orders_args,
    "audit_partition": inspection.audit_partition_args,
    "audit_products": inspection.audit_products_args,
    "cancel_order": holds.end_hold_args,
    "change_product": products.change_product_args,
    "claim_units": transfers.claim_units_args,
    "complete_order": holds.end_hold_args,
    "expire_orders": expired_holds.expire_orders_args,
    "extend_hold": holds.extend_hold_args,
    "find_due_holds": expired_holds.find_due_holds_args,
    "give_units": transfers.give_units_args,
    "mark_restored": restored.mark_restored_args,
    "move_counter": client.move_counter_args,
    "move_stock": stock.move_stock_args,
    "note_propagated": catalogue_pushes.note_propagated_args,
    "place_order": orders.place_order_args,
    "push_product": catalogue_pushes.push_product_args,
    "read_outgoing": transfers.read_outgoing_args,
    "read_placed": recent_orders.read_placed_args,
    "refuse": partition.refuse_args,
    "return_order": returns.return_order_args,
    "settle_units": transfers.settle_units_args,
    "take_units": transfers.take_units_args,
    "upgrade_orders": layout.upgrade_orders_args,
    "withdraw_product": products.withdraw_product_args,
}
"""The function that returns the ARGV of each script. The others have none: their arguments are only a list."""


class Table(NamedTuple):
    """What the header says about KEYS or ARGV."""

    names: list[str]
    """The first word of each fixed key or argument."""
    has_tail: bool
    """Whether more keys or arguments may follow, as in `5..`."""


def split(source: str) -> tuple[str, str, str]:
    """Return the first line, the header and the code of a script."""
    first, *lines = source.split("\n")
    size = next(number for number, line in enumerate(lines) if not line.startswith("--"))
    return first, "\n".join(lines[:size]), "\n".join(lines[size:])


def documented_replies(header: str) -> set[str]:
    """Return the first word of each reply in a header."""
    _, _, replies = header.partition("\n-- Replies: ")
    return set(re.findall(r"^(?:--          )?([a-z_]+)(?= {2,}| <|$)", replies, re.MULTILINE))


def documented_table(header: str, table: str) -> Table:
    """Return what a header says about KEYS or ARGV. Its numbers must count from 1 without a gap."""
    if table == "ARGV" and "\n-- ARGV " not in header:
        return Table([], has_tail=False)
    match = re.search(rf"\n-- {table} (1[ .].*?)\n--(?: ARGV|\n)", header, re.DOTALL)
    assert match, header
    rows = re.findall(r"^(?:-- {6})?(\d+|last)(\.\.)? +(\S+)", match[1], re.MULTILINE)
    numbered = [(int(number), bool(tail), word) for number, tail, word in rows if number != "last"]
    assert [number for number, _, _ in numbered] == list(range(1, len(numbered) + 1))
    assert not any(tail for _, tail, _ in numbered[:-1])
    return Table([word for _, tail, word in numbered if not tail], numbered[-1][1])


def names_in_code(code: str, table: str) -> list[str]:
    """Return the names that the first lines of code give to KEYS or ARGV."""
    first_lines = code.split("\n")[:2]
    unpacked = [
        match for line in first_lines if (match := re.fullmatch(rf"local (.+) = unpack\({table}, 1, (\d+)\)", line))
    ]
    assert len(unpacked) <= 1
    names = unpacked[0][1].split(", ") if unpacked else []
    assert not unpacked or len(names) == int(unpacked[0][2])
    return names


def constants(code: str) -> dict[str, str]:
    """Return the locals that a line such as `local fixed_keys, fixed_args = 4, 8` sets, with their values."""
    lines = re.findall(r"^local (\w+(?:, \w+)*) = (\S+(?:, \S+)*)$", code, re.MULTILINE)
    return {
        name: value
        for names, values in lines
        for name, value in zip(names.split(", "), values.split(", "), strict=False)
    }


@pytest.mark.parametrize("name", SOURCES)
def test_the_header_has_a_sentence_the_keys_the_arguments_and_the_replies(name: str) -> None:
    first, header, _ = split(SOURCES[name])
    assert re.fullmatch(r"#!lua( flags=[a-z,-]+)?", first)
    assert re.fullmatch(r"-- [A-Z].*?\.\n--\n-- KEYS 1.*\n(-- ARGV 1.*\n)?--\n-- Replies: .*", header, re.DOTALL)


@pytest.mark.parametrize("table", ["KEYS", "ARGV"])
@pytest.mark.parametrize("name", SOURCES)
def test_the_first_lines_of_code_use_the_names_in_the_header(name: str, table: str) -> None:
    _, header, code = split(SOURCES[name])
    documented, named = documented_table(header, table), names_in_code(code, table)
    assert len(named) == len(documented.names)
    if table == "ARGV":
        assert named == documented.names
    else:
        assert all(key.endswith("_key") for key in named)
    head = constants(code).get({"KEYS": "fixed_keys", "ARGV": "fixed_args"}[table])
    assert head == (str(len(named)) if documented.has_tail and named else None)


@pytest.mark.parametrize("name", SOURCES)
def test_no_script_reads_a_key_or_an_argument_by_a_literal_position(name: str) -> None:
    _, _, code = split(SOURCES[name])
    assert not re.findall(r"(?:KEYS|ARGV)\[\d", code)


@pytest.mark.parametrize("name", SOURCES)
def test_the_python_function_returns_the_arguments_in_the_order_of_the_script(name: str) -> None:
    _, header, code = split(SOURCES[name])
    named, documented = names_in_code(code, "ARGV"), documented_table(header, "ARGV")
    if name not in ARGS:
        assert not named
        return
    parameters = inspect.signature(ARGS[name]).parameters
    assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in parameters.values())
    fixed = [argument for argument in named if not argument.endswith("_count")]
    assert list(parameters)[: len(fixed)] == fixed
    tails = list(parameters)[len(fixed) :]
    assert bool(tails) == documented.has_tail
    values = {argument: f"the {argument}" for argument in fixed}
    lists = {tail: [f"{tail} {number}" for number in range(3)] for tail in tails}
    head = [
        len(lists[f"{argument.removesuffix('_count')}s"]) if argument not in fixed else values[argument]
        for argument in named
    ]
    assert list(ARGS[name](**values, **lists)) == [*head, *(part for parts in lists.values() for part in parts)]


def test_every_script_with_named_arguments_has_a_python_function() -> None:
    assert ARGS.keys() == SOURCES.keys() - {
        "audit_customers",
        "audit_members",
        "check_rights",
        "mark_batch",
        "read_hashes",
    }


@pytest.mark.parametrize("name", SOURCES)
def test_a_script_replies_with_exactly_the_words_in_its_header(name: str) -> None:
    _, header, code = split(SOURCES[name])
    replied = set(re.findall(r"(?:return |reply = |refusal = (?:\w+ or )?)\{'(\w+)'", code))
    for words in re.findall(r"refusal_word = \(\{(.*?)\}\)", code):
        replied |= set(re.findall(r"'(\w+)'", words))
    # The script of an order that is in another status than needed replies with this status.
    needed = re.findall(r"if status ~= '(\w+)' then return \{status\} end", code)
    assert len(needed) == code.count("return {status}")
    for status in needed:
        replied |= set(OrderStatus) - {status}
    assert replied == documented_replies(header)


@pytest.mark.parametrize("name", SOURCES)
def test_a_script_accesses_only_the_keys_that_the_caller_passes(name: str) -> None:
    _, _, code = split(SOURCES[name])
    if name == "check_rights":  # it gets the commands as arguments
        assert re.findall(r"redis\.p?call\((.*?), (.*?),", code) == [("words[1]", "KEYS[i]")]
        return
    given = {*names_in_code(code, "KEYS"), *(local for local, value in constants(code).items() if "KEYS[" in value)}
    commands = re.findall(r"redis\.p?call\('([A-Z]+)'(?:, *([^,)]*))?", code)
    assert commands
    assert {command for command, key in commands if key not in given and not key.startswith("KEYS[")} <= {"TIME"}


COPIES = {
    "idempotency_key": r"^if idempotency_key ~= '' then\n  local first_fingerprint, .*?\nend\n",
    "refusal_ms": r"^if refusal then\n.*?\nend\n",
    "now_ms": r"^now_ms = tonumber\(now_ms\)\nif not now_ms then\n.*?\nend\n",
}
"""The lines that all scripts with this argument share. A script cannot include another file, so each has a copy."""


@pytest.mark.parametrize("argument", COPIES)
def test_copied_lines_are_the_same_in_every_script(argument: str) -> None:
    copies = {}
    for name, source in SOURCES.items():
        _, _, code = split(source)
        if argument in names_in_code(code, "ARGV") or name == "place_order":  # it gets them as options
            found = re.findall(COPIES[argument], code, re.MULTILINE | re.DOTALL)
            # The hash of an order's key has the field `order`, of a stock change `product`, of a return `return`.
            copies[name] = [re.sub("'(product|return)'", "'order'", copy) for copy in found]
    copies.pop("refuse", None)  # it decides nothing: its caller has refused the request
    expected = copies["place_order"]
    assert len(copies) > 1
    assert len(expected) == 1
    assert all(copy == expected for copy in copies.values()), copies
