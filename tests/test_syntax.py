"""Digests of code: what is said to readers counts for nothing, what runs counts."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.syntax import bare_tree, file_digest, tree_digest

CODE = '''"""A module."""

LIMIT = 3
"""The limit."""


class Shape:
    """A shape."""

    def area(self, side: float) -> float:
        """Return the area."""
        return side * side  # a square
'''


def digest(text: str) -> str:
    return tree_digest(bare_tree(text.encode()))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"""A module."""', '"""Another text."""'),
        ('"""The limit."""', ""),
        ('"""Return the area."""', '"""Give the area.\n\n        In square metres.\n        """'),
        ("  # a square", ""),
        ("\n\n\nclass", "\n\n\n# A remark.\n\n\nclass"),
        ("(self, side: float)", "(\n        self,\n        side: float,\n    )"),
    ],
)
def test_prose_and_layout_do_not_count(old: str, new: str) -> None:
    assert old in CODE
    assert digest(CODE.replace(old, new)) == digest(CODE)


@pytest.mark.parametrize(
    ("old", "new"),
    [("side * side", "side + side"), ("LIMIT = 3", "LIMIT = 4"), ("area", "surface")],
)
def test_what_runs_counts(old: str, new: str) -> None:
    assert digest(CODE.replace(old, new)) != digest(CODE)


def test_a_text_that_is_used_counts() -> None:
    assert digest('NAME = "a"') != digest('NAME = "b"')
    assert digest('def name():\n    return "a"') != digest('def name():\n    return "b"')


def test_a_file_has_the_digest_of_its_tree(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(CODE)
    assert file_digest(path) == digest(CODE)
    with pytest.raises(FileNotFoundError):
        file_digest(tmp_path / "none.py")
    path.write_text("def (")
    with pytest.raises(SyntaxError):
        file_digest(path)


def test_a_file_written_anew_has_another_digest_at_once(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("x = 1\n")
    before = file_digest(path)
    assert file_digest(path) == before
    path.write_text("x = 2\n")
    assert file_digest(path) != before
