"""Writes the answers of today into the documents: `.venv/bin/python -m tests.docs.update [README.md ...]`.

A printed answer that still fits is left as it is, with its own times and ids.
"""

import sys
from pathlib import Path

from tests.docs.blocks import documents, executed, read_blocks, read_steps
from tests.docs.session import check_document


def update(path: Path) -> int:
    """Rewrite the printed answers of a document. Return how many were changed."""
    steps = [step for block in read_blocks(path) if executed(block) for step in read_steps(block)]
    if not steps:
        return 0
    answers, differences = check_document(steps)
    lines = path.read_text().splitlines()
    for step, answer in reversed(list(zip(steps, answers, strict=True))):
        lines[step.start : step.end] = answer
    path.write_text("\n".join(lines) + "\n")
    return len(differences)


if __name__ == "__main__":
    for document in [Path(name).resolve() for name in sys.argv[1:]] or documents():
        print(f"{document.name}: {update(document)} answers changed")
