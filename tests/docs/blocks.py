"""Reads Markdown: fenced blocks, and the commands and printed answers in them."""

import re
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[2]

SHELLS: Final = ("console", "sh", "bash", "shell", "zsh")

_FENCE = re.compile(r"^( *)(`{3,})([^\s`]*)\s*(.*)$")
_HEREDOC = re.compile(r"<<-?\s*'?(\w+)'?")
_CTRL_C: Final = "^C"


class Block(NamedTuple):
    """A fenced block. `note` is the text after the language: `console e2e`, `console not-run: <reason>`."""

    path: Path
    first: int
    """Index of its first line of content in the document."""
    language: str
    note: str
    lines: list[str]

    @property
    def place(self) -> str:
        """Where the block is, for a message: `README.md:12`."""
        return f"{self.path.relative_to(ROOT)}:{self.first}"


class Step(NamedTuple):
    """A command and the answer that the document prints under it."""

    place: str
    command: str
    expected: list[str]
    start: int
    """Index in the document of the first line of the printed answer; `end` is one past the last."""
    end: int


def documents() -> list[Path]:
    """Return all documents for users and developers."""
    top = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
    return [*top, *sorted((ROOT / "docs").glob("*.md")), ROOT / "bench" / "README.md"]


def read_blocks(path: Path) -> list[Block]:
    """Return the fenced blocks of a document."""
    blocks, fence, opened = [], "", None
    for index, line in enumerate(path.read_text().splitlines()):
        match = _FENCE.match(line)
        if opened is None and match:
            opened = Block(path, index + 1, match[3], match[4].strip(), [])
            fence = match[2]
        elif opened is not None and line.strip() == fence:
            blocks.append(opened)
            opened = None
        elif opened is not None:
            opened.lines.append(line)
    assert opened is None, f"{path}: a fenced block is not closed"
    return blocks


def read_text(path: Path) -> str:
    """Return a document without its fenced blocks."""
    inside = {
        line for block in read_blocks(path) for line in range(block.first - 1, block.first + len(block.lines) + 1)
    }
    return "\n".join(line for index, line in enumerate(path.read_text().splitlines()) if index not in inside)


def read_steps(block: Block) -> list[Step]:
    """Return the commands of a console block, each with its printed answer.

    A command begins with `$ `. It goes on while a line ends with a backslash, a quote is open, or a here-document is
    not closed. A line `^C` is a key press: it stops the service that an earlier command of the document started.
    """
    steps = []
    lines, index = block.lines, 0
    while index < len(lines):
        place = f"{block.path.relative_to(ROOT)}:{block.first + index + 1}"
        assert lines[index].startswith("$ ") or lines[index] == _CTRL_C, f"{place}: a command begins with '$ '"
        command = [lines[index].removeprefix("$ ")]
        index += 1
        while index < len(lines) and _goes_on("\n".join(command)):
            command.append(lines[index])
            index += 1
        start = index
        while index < len(lines) and not lines[index].startswith("$ ") and lines[index] != _CTRL_C:
            index += 1
        steps.append(Step(place, "\n".join(command), lines[start:index], block.first + start, block.first + index))
    return steps


def _goes_on(command: str) -> bool:
    here = _HEREDOC.search(command)
    if here:
        return here[1] not in command.splitlines()[1:]
    return command.endswith("\\") or command.count("'") % 2 == 1


def executed(block: Block) -> bool:
    """Return whether `make test` runs the block."""
    return block.language == "console" and not block.note
