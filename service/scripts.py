"""The Lua scripts of `lua/`: one file a verb, named like the Store's method."""

from hashlib import sha1
from pathlib import Path
from typing import NamedTuple


class Script(NamedTuple):
    """A script's source, and the SHA-1 that Redis knows it by."""

    source: str
    sha: str


def load_scripts() -> dict[str, Script]:
    """All scripts by name. In a wheel they lie beside the package's modules, in a checkout beside the package."""
    package = Path(__file__).parent
    folder = next(folder for folder in (package / "lua", package.parent / "lua") if folder.is_dir())
    sources = {path.stem: path.read_text() for path in sorted(folder.glob("*.lua"))}
    return {
        name: Script(source, sha1(source.encode(), usedforsecurity=False).hexdigest())
        for name, source in sources.items()
    }
