"""Whether a Redis may be used: its version, what it promises to keep, and whose data it holds."""

from typing import Final

from service.errors import Unfit
from service.settings import Durability

LAYOUT: Final = 1
"""Version of the keys in keys.py, kept in `{shop}:meta`."""

ENGINE_SETTINGS: Final = ("appendonly", "appendfsync", "no-appendfsync-on-rewrite", "maxmemory", "maxmemory-policy")

_DURABILITIES: Final[tuple[Durability, ...]] = ("none", "everysec", "always")


def check_version(info: str) -> None:
    """`info`: the reply to INFO server. Raises Unfit below Redis 7.0 and Valkey 8, and on 32 bits."""
    facts = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    name, oldest = ("valkey_version", 8) if "valkey_version" in facts else ("redis_version", 7)
    if int(facts[name].partition(".")[0]) < oldest:
        raise Unfit(f"the engine has {name} {facts[name]}, Holdfast needs {oldest}.0 or later")
    if facts.get("arch_bits") == "32":
        raise Unfit("the engine is built for 32 bits, where its scripts cannot write numbers from 2^31 on")


def check_settings(reply: list[str], expected: Durability) -> None:
    """`reply`: to CONFIG GET of ENGINE_SETTINGS. Raises Unfit if the engine keeps less than `expected`.

    What each setting keeps was measured by killing, and by cutting the file to its last synced byte: see
    DESIGN.md, section 6.
    """
    found = dict(zip(reply[::2], reply[1::2], strict=True))
    if found.get("maxmemory", "0") != "0" and found.get("maxmemory-policy") != "noeviction":
        raise Unfit(
            f"the engine throws keys away when its memory is full (maxmemory-policy {found.get('maxmemory-policy')}): "
            "stock, orders and idempotency keys among them. Set it to noeviction"
        )
    # While the file is rewritten, `no-appendfsync-on-rewrite` syncs nothing at all.
    synced = found.get("appendonly") == "yes" and found.get("no-appendfsync-on-rewrite") == "no"
    promised: Durability = "none"
    if synced and found.get("appendfsync") in ("always", "everysec"):
        promised = "always" if found["appendfsync"] == "always" else "everysec"
    if _DURABILITIES.index(promised) < _DURABILITIES.index(expected):
        settings = ", ".join(f"{name} {found.get(name, 'unknown')}" for name in ENGINE_SETTINGS[:3])
        raise Unfit(
            f"HOLDFAST_DURABILITY is {expected}, but the engine promises {promised} ({settings}): "
            "set up the engine for it, or say what you can bear to lose"
        )


def check_layout(layout: int) -> None:
    """Raises Unfit if a newer program wrote the data."""
    if layout > LAYOUT:
        raise Unfit(
            f"the data in Redis has layout {layout}, this program knows {LAYOUT}: use the newer program that wrote it"
        )
