"""Memo keys: a commit to the README hits, an edited kernel function misses."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from include import memo, usecase_file
from include.config import ROOT
from tests.shop import YAML

TEXT = YAML.replace("source: visits\n", "sql: shop/orders.sql\n")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of include/ that may be edited."""
    shutil.copytree(ROOT / "include", tmp_path / "include", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "README.md").write_text("first")
    sql = tmp_path / "feature_repo" / "sql" / "shop"
    sql.mkdir(parents=True)
    (sql / "orders.sql").write_text("SELECT 1")
    monkeypatch.setattr(memo, "ROOT", tmp_path)
    monkeypatch.setattr(memo, "FEATURE_SQL", tmp_path / "feature_repo" / "sql")
    return tmp_path


def key(**changes: object) -> str:
    arguments: dict = {
        "stage": "validation",
        "code": memo.code_digest("include.memo"),
        "use_case": usecase_file.parse(TEXT),
        "fields": ("sources", "label.delay", "features"),
        "libraries": ("duckdb",),
        "reads": [("shop/raw/orders", "2026-01-01", "sha256:a")],
        "options": {},
    }
    return memo.memo_key(**{**arguments, **changes})


def test_the_readme_hits_and_the_kernel_misses(tree: Path) -> None:
    before = key()
    (tree / "README.md").write_text("second")
    assert key() == before
    kernel = tree / "include" / "lake.py"  # include.memo imports it
    kernel.write_text(kernel.read_text() + "\n# edited\n")
    assert key() != before


def test_a_module_that_is_not_imported_does_not_matter(tree: Path) -> None:
    before = key()
    (tree / "include" / "stranger.py").write_text("x = 1\n")
    assert key() == before


def test_sql_counts_by_its_content(tree: Path) -> None:
    before = key()
    (tree / "feature_repo" / "sql" / "shop" / "orders.sql").write_text("SELECT 2")
    assert key() != before


def test_only_declared_fields_count(tree: Path) -> None:
    before = key()
    assert key(use_case=usecase_file.parse(TEXT.replace("owner: shop-team", "owner: somebody"))) == before
    assert key(use_case=usecase_file.parse(TEXT.replace("delay: 5d", "delay: 4d"))) != before


@pytest.mark.parametrize(
    "change",
    [
        {"reads": [("shop/raw/orders", "2026-01-01", "sha256:b")]},
        {"reads": []},
        {"libraries": ("duckdb", "pyarrow")},
        {"options": {"restate": "reason"}},
    ],
)
def test_what_is_read_counts(tree: Path, change: dict) -> None:
    assert key(**change) != key()


def test_the_order_of_reads_does_not_count(tree: Path) -> None:
    reads = [("a", "1", "x"), ("b", "2", "y")]
    assert key(reads=reads) == key(reads=reads[::-1])
