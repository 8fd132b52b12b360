"""Host and port of a Redis, and the lists of them in URLs."""

import re
from typing import NamedTuple


class Address(NamedTuple):
    """Where a Redis listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str, default_port: int) -> Address:
    """Return the address in `host`, `host:port`, `[::1]` or `[::1]:port`. Raise ValueError."""
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::([0-9]{1,5}))?", text)
    if match is None or int(match[3] or 1) not in range(1, 65_536):
        raise ValueError("not a host")
    return Address(match[1] or match[2], int(match[3] or default_port))
