"""Which form of an answer a client would rather have (RFC 9110, section 12)."""

import re
from collections.abc import Iterable
from typing import Final

_MAX_BYTES: Final = 1000
"""Of a header that is read. Those of browsers have about 150."""


def prefers_html(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Return whether a client would rather have HTML than JSON, as browsers would. Without Accept: JSON."""
    accepted = weights(headers, b"accept")
    html = accepted.get("text/html", accepted.get("text/*", accepted.get("*/*", 0)))
    json = accepted.get("application/json", accepted.get("application/*", accepted.get("*/*", 0)))
    return html > json


def weights(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> dict[str, float]:
    """Return the values of a header such as Accept, each with its weight from 0, not acceptable, to 1."""
    text = b",".join([value for field, value in headers if field == name])[:_MAX_BYTES].decode("latin-1")
    return dict(_weight(part) for part in text.split(","))


def _weight(part: str) -> tuple[str, float]:
    value, *parameters = [piece.strip().lower() for piece in part.split(";")]
    found = [piece[2:] for piece in parameters if re.fullmatch(r"q=[01](\.[0-9]{0,3})?", piece)]
    return value, float(found[0]) if found else 1.0
