"""The types of settings: how the text of each becomes a value, and which values are allowed."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple


class SettingType(NamedTuple):
    """The values that a setting may have."""

    parse: Callable[[str], Any]
    """Return the value of a text. Raise ValueError if it is not allowed."""
    values: str
    """The allowed values, as text for messages: "must be ..."."""
    metavar: str
    secret: bool = False
    """Whether a value may contain a password, so that no message may show it."""


def text_matching(pattern: str, values: str, metavar: str, secret: bool = False) -> SettingType:
    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError
        return text

    return SettingType(parse, values, metavar, secret)


def names(pattern: str, values: str, metavar: str) -> SettingType:
    def parse(text: str) -> tuple[str, ...]:
        found = tuple(text.split(","))
        if len(set(found)) != len(found) or not all(re.fullmatch(pattern, name) for name in found):
            raise ValueError
        return found

    return SettingType(parse, values, metavar)


def whole_number(minimum: int, maximum: int) -> SettingType:
    def parse(text: str) -> int:
        if not re.fullmatch("[0-9]{1,20}", text):  # int() also accepts 1_000, spaces and the digits of all alphabets
            raise ValueError
        number = int(text)
        if not minimum <= number <= maximum:
            raise ValueError
        return number

    return SettingType(parse, f"a whole number from {minimum} to {maximum}", "NUMBER")


def seconds(minimum: float, maximum: float) -> SettingType:
    def parse(text: str) -> float:
        if not re.fullmatch(r"[0-9]*\.?[0-9]*", text):  # float() also accepts 1_0, nan and the digits of all alphabets
            raise ValueError
        number = float(text)
        if not minimum <= number <= maximum:
            raise ValueError
        return number

    return SettingType(parse, f"a number of seconds from {minimum:g} to {maximum:g}", "SECONDS")


def choice(names: tuple[str, ...]) -> SettingType:
    def parse(text: str) -> str:
        if text not in names:
            raise ValueError
        return text

    return SettingType(parse, f"{', '.join(names[:-1])} or {names[-1]}", f"[{'|'.join(names)}]")


def boolean() -> SettingType:
    words = {"1": True, "true": True, "t": True, "yes": True, "y": True, "on": True}
    words |= {"0": False, "false": False, "f": False, "no": False, "n": False, "off": False}

    def parse(text: str) -> bool:
        if text.lower() not in words:
            raise ValueError
        return words[text.lower()]

    return SettingType(parse, "true or false", "")


def directory() -> SettingType:
    def parse(text: str) -> Path:
        if not text:  # `--data-dir "$UNSET"` must not fill the current directory
            raise ValueError
        try:
            return Path(text).expanduser()  # only a shell expands ~: compose, systemd and Kubernetes pass it on
        except RuntimeError:  # there is no such user
            raise ValueError from None

    return SettingType(parse, "a directory; ~ is your home, and ~name that of an existing user", "DIRECTORY")


def file_path() -> SettingType:
    parse = directory().parse
    return SettingType(parse, "a file; ~ is your home, and ~name that of an existing user", "FILE")
