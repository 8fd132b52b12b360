"""Links and file names in the documents lead somewhere."""

import re
from pathlib import Path

import pytest

from tests.docs import contract
from tests.docs.blocks import ROOT, documents, read_text

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FILE_NAME = re.compile(r"`((?:\.ci|bench|docs|lua|service|tests)/[\w./-]*)`")


def anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a document."""
    headings = re.findall(r"^#+ (.*)$", read_text(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower().strip()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    for redis in LINK.findall(read_text(path)):
        if re.match("[a-z]+:", redis):
            continue
        name, _, anchor = redis.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), redis
        if anchor:
            assert anchor in anchors(target), redis


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_a_document_names_exists(path: Path) -> None:
    for name in FILE_NAME.findall(read_text(path)):
        assert (ROOT / name).exists(), name


def test_the_architecture_names_every_module_in_its_package() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text().partition("## Modules")[2].partition("## Decisions")[0]
    _, *sections = re.split(r"^(?=\*\*`\w)|^(?=At the top)", text, flags=re.MULTILINE)
    for section in sections:
        heading = re.match(r"\*\*`([\w/]+)/`\*\*", section)
        folder = ROOT / (heading[1] if heading else "service")
        modules = {path.stem for path in folder.glob("*.*") if path.suffix in (".py", ".lua")}
        modules -= {"__init__", "__main__"}
        if folder.name == "cli":  # "one module per command"
            modules = {name for name in modules if name.rstrip("_") not in contract.commands()}
        named = set(re.findall(r"`(\w+)`", section))
        assert named >= modules, folder
        first_cells = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
        assert modules >= {name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)}, folder


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


def test_each_test_that_the_guarantees_name_exists() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", (ROOT / "docs" / "guarantees.md").read_text())
    assert len(named) > 20
    for file, name in named:
        assert re.search(rf"^(?:async )?def {name}\(", (ROOT / file).read_text(), re.MULTILINE), f"{file}::{name}"
