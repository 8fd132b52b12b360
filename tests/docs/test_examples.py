"""Every command of the documents is run as printed, and answers as printed. To print today's: tests/docs/update.py."""

import re
import shlex
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, SHELLS, Block, documents, executed, read_blocks, read_steps
from tests.docs.session import check_document, make_recipes

STEPS = {
    path: [step for block in read_blocks(path) if executed(block) for step in read_steps(block)] for path in documents()
}
BLOCKS = [block for path in documents() for block in read_blocks(path)]


def name(value: object) -> str:
    return value.name if isinstance(value, Path) else value.place if isinstance(value, Block) else str(value)


@pytest.mark.process
@pytest.mark.parametrize("path", [path for path, steps in STEPS.items() if steps], ids=name)
def test_every_command_answers_as_printed(path: Path) -> None:
    _, differences = check_document(STEPS[path])
    assert not differences, "\n\n".join(differences)


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language in SHELLS], ids=name)
def test_every_shell_block_is_executed_or_says_why_not(block: Block) -> None:
    assert block.language == "console", "write commands in a console block: `$ command`, and its answer below"
    if block.note == "e2e":  # run by tests/e2e/test_docs.py
        assert all(step.command.split()[0] in ("docker", "printf") for step in read_steps(block))
    elif block.note:
        assert re.fullmatch(r"not-run: .{10,}", block.note), "give a reason: `console not-run: <reason>`"


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "console" and block.note], ids=name)
def test_a_command_that_is_not_run_names_only_existing_files_and_services(block: Block) -> None:
    services = set(re.findall(r"^  (\w+):$", (ROOT / "docker-compose.yml").read_text().split("\nnetworks:")[0], re.M))
    services |= set(
        re.findall(r"^  (\w+):$", (ROOT / "docker-compose.scale.yml").read_text().split("\nconfigs:")[0], re.M)
    )
    for step in read_steps(block):
        words = shlex.split(step.command, comments=True)
        for word in words:
            if re.fullmatch(r"[\w./-]+\.(yml|md|py|toml)", word):
                assert (ROOT / word).exists(), word
        if words[0] == "make":
            assert all(word in make_recipes() for word in words[1:]), step.command
        if words[:2] == ["docker", "compose"]:
            for verb in ("exec", "logs"):
                if verb in words:
                    rest = [word for word in words[words.index(verb) + 1 :] if not word.startswith("-")]
                    assert not rest or rest[0] in services, step.command
