"""The docker commands of the documents work as printed, in a copy of this project."""

import os
import shutil
from pathlib import Path

from tests.docs.blocks import ROOT, documents, read_blocks, read_steps
from tests.docs.session import open_session
from tests.e2e.stack import PROJECT

STEPS = [
    step for path in documents() for block in read_blocks(path) if block.note == "e2e" for step in read_steps(block)
]


def test_every_docker_command_of_the_documents_works_as_printed(tmp_path: Path) -> None:
    copy = tmp_path / "holdfast"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", ".uv", ".env", "data", ".*_cache"))
    home = os.environ.get("HOME", "/")  # docker's own settings
    with open_session(copy, patience=400, HOME=home, COMPOSE_PROJECT_NAME=f"{PROJECT}-docs") as session:
        try:
            for step in STEPS:
                answer = session.run(step)
                assert session.status() == 0, f"{step.place}: {step.command}\n" + "\n".join(answer)
                if step.expected:
                    assert session.values.fits(step.expected, answer), f"{step.place}: {answer}"
        finally:
            session.execute("docker compose down --volumes --remove-orphans --rmi local")
