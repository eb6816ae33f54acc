"""What the pages name is there: files of include/, dags/ and tests/, what modules define, and
the files that pages link to.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    {
        ROOT / "README.md",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "docs/explanation").glob("*.md"),
        *(ROOT / "docs/how-to").glob("*.md"),
    }
)
PATH = re.compile(r"(?<![\w/])(?:include|dags|tests)/[\w./-]*\w/?")
DOTTED = re.compile(r"\binclude(?:\.\w+)+")
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")


def named(page: Path) -> list[str]:
    """Return the paths and dotted names in a page that are not there."""
    text = page.read_text(encoding="utf-8")
    missing = [path for path in PATH.findall(text) if not (ROOT / path).exists()]
    return missing + [name for name in DOTTED.findall(PATH.sub("", text)) if not exists(name)]


def exists(name: str) -> bool:
    """Tell whether a dotted name is a module or package, or what a module defines at its top."""
    place, parent = ROOT / name.replace(".", "/"), ROOT / name.rpartition(".")[0].replace(".", "/")
    if place.is_dir() or place.with_suffix(".py").is_file():
        return True
    module = parent.with_suffix(".py")
    if not module.is_file():
        return False
    body = ast.parse(module.read_bytes()).body
    defined = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return name.rpartition(".")[2] in defined


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_names_is_there(page: Path) -> None:
    assert named(page) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_links_to_is_there(page: Path) -> None:
    links = LINK.findall(page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_a_name_that_is_gone_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "`include/unchanged.py`, include.deployment.rollout.answered, include.rollout.answered, "
        "`include/records/`."
    )
    assert named(page) == ["include/unchanged.py", "include.rollout.answered"]
