"""Loads the Lua scripts of `lua/`. Most methods of the Store that change something run one of them."""

from hashlib import sha1
from pathlib import Path
from typing import NamedTuple


class Script(NamedTuple):
    """The source of a script, and the SHA-1 by which Redis knows it."""

    source: str
    sha: str


def load_scripts() -> dict[str, Script]:
    """Return all scripts by name. A wheel has them in the package, a checkout in the folder above the package."""
    package = Path(__file__).parents[1]
    folder = next(folder for folder in (package / "lua", package.parent / "lua") if folder.is_dir())
    sources = {path.stem: path.read_text() for path in sorted(folder.glob("*.lua"))}
    return {
        name: Script(source, sha1(source.encode(), usedforsecurity=False).hexdigest())
        for name, source in sources.items()
    }
