"""Compares a printed answer with a real answer. Both must be equal, except for values that differ from run to run.

A document prints real values: `"created_at":"2026-11-26T01:16:48.239Z"`. A value with one of the forms below may
differ from the real value of the same form. An id or time that a document prints several times must have the same real
value each time, and a command that names it gets the real value. A line `...` stands for any number of lines.
"""

import re
from typing import Final

FORMS: Final = {
    "time": r"\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3,6}Z",
    "date": r"\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} 20\d\d \d\d:\d\d:\d\d GMT",
    "event id": r"\b1\d{12}-\d+\b",
    "milliseconds": r"\b1\d{12}\b",
    "request id": r"\b[0-9a-f]{8}-[0-9a-f]{1,6}\b",
    "API key": r"\bhf_[A-Za-z0-9_-]{43}(?![A-Za-z0-9_-])",
    "SHA-256": r"\b[0-9a-f]{64}\b",
    "beginning of a SHA-256": r"(?<=sha256:)[0-9a-f]{10}(?=…)",
    "process id": r"(?<=process \[)\d+(?=\])",
    "duration": r'(?<="ms": )\d+\.\d+',
}
"""The forms of the values that may differ, each with its name and its pattern."""

_FREE: Final = ("date", "duration")
"""Forms whose values need not be consistent: equal dates in a document may have different real dates."""

ANY_LINES: Final = "..."

_NAMES: Final = {f"f{index}": name for index, name in enumerate(FORMS)}
_FORM = re.compile("|".join(f"(?P<f{index}>{pattern})" for index, pattern in enumerate(FORMS.values())))


class Values:
    """The values of the document, each with the real value that was found in its place."""

    def __init__(self) -> None:
        self.real: dict[str, str] = {}

    def to_real(self, text: str) -> str:
        """Return a command with the document's values replaced by the real values."""
        return _FORM.sub(lambda match: self.real.get(match[0], match[0]), text)

    def to_printed(self, text: str) -> str:
        """Return a real line with the values replaced that the document knows."""
        printed = {real: value for value, real in self.real.items()}
        return _FORM.sub(lambda match: printed.get(match[0], match[0]), text)

    def fits(self, expected: list[str], actual: list[str]) -> bool:
        """Return whether the real lines match the printed lines. If they do, remember their values."""
        before = dict(self.real)
        if self._fits(expected, actual):
            return True
        self.real = before
        return False

    def _fits(self, expected: list[str], actual: list[str]) -> bool:
        if not expected:
            return not actual
        if expected[0] == ANY_LINES:
            return any(self.fits(expected[1:], actual[start:]) for start in range(len(actual) + 1))
        return bool(actual) and self._line_fits(expected[0], actual[0]) and self._fits(expected[1:], actual[1:])

    def _line_fits(self, expected: str, actual: str) -> bool:
        if _blank(expected) != _blank(actual):
            return False
        for printed, found in zip(_FORM.finditer(expected), _FORM.finditer(actual), strict=True):
            free = _NAMES[str(printed.lastgroup)] in _FREE
            if not free and self.real.setdefault(printed[0], found[0]) != found[0]:
                return False
        return True


def _blank(line: str) -> str:
    """Return the line with the name of its form in the place of each varying value."""
    return _FORM.sub(lambda match: f"<{_NAMES[str(match.lastgroup)]}>", line)
