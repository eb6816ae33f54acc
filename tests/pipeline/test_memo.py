"""Memo keys: a commit to the README hits, an edited kernel function misses."""

from __future__ import annotations

import ast
import shutil
from itertools import pairwise
from pathlib import Path

import pytest

from include.config import use_case_file
from include.config.settings import ROOT
from include.pipeline import memo
from tests.builders.shop import YAML

TEXT = YAML.replace("source: visits\n", "sql: shop/orders.sql\n")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of include/ that may be edited."""
    shutil.copytree(
        ROOT / "include", tmp_path / "include", ignore=shutil.ignore_patterns("__pycache__")
    )
    (tmp_path / "README.md").write_text("first")
    sql = tmp_path / "feature_repo" / "sql" / "shop"
    sql.mkdir(parents=True)
    (sql / "orders.sql").write_text("SELECT 1")
    monkeypatch.setattr(memo, "ROOT", tmp_path)
    monkeypatch.setattr(memo, "FEATURE_SQL", tmp_path / "feature_repo" / "sql")
    return tmp_path


def key(**changes: object) -> str:
    arguments: dict = {
        "stage": "validate_data",
        "code": memo.code_digest("include.pipeline.memo"),
        "use_case": use_case_file.parse(TEXT),
        "fields": ("sources", "label.delay", "features"),
        "libraries": ("duckdb",),
        "inputs": [("shop/raw/orders", "2026-01-01", "sha256:a")],
        "options": {},
    }
    return memo.memo_key(**{**arguments, **changes})


def test_the_readme_hits_and_the_kernel_misses(tree: Path) -> None:
    before = key()
    (tree / "README.md").write_text("second")
    assert key() == before
    kernel = tree / "include" / "lake" / "digests.py"  # include.pipeline.memo imports it
    kernel.write_text(kernel.read_text().replace('"ascending"', '"descending"'))
    assert key() != before


def test_what_is_said_to_readers_hits(tree: Path) -> None:
    before = key()
    kernel = tree / "include" / "lake" / "digests.py"
    text = (
        kernel.read_text()
        .replace('"""Return', '"""Give back')
        .replace("\n\n\n", "\n\n\n# A remark.\n")
    )
    assert text != kernel.read_text()
    kernel.write_text(text)
    assert key() == before


def children() -> set[tuple[str, str]]:
    """Return (module, module that it starts as a process of its own), found in the sources of
    include/.
    """
    found = set()
    for name, path in memo._modules().items():
        for node in ast.walk(ast.parse(path.read_text())):
            words = [
                word.value for word in getattr(node, "elts", []) if isinstance(word, ast.Constant)
            ]
            started = [child for flag, child in pairwise(words) if flag == "-m"]
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("python_module"):
                started += [word.value for word in node.args[:1] if isinstance(word, ast.Constant)]
            found |= {(name, child) for child in started if str(child).startswith("include.")}
    return found


def test_what_a_stage_starts_as_a_process_is_part_of_its_code() -> None:
    """The reader of files is a child of ingestion: mended, it must read again what it read
    wrongly.
    """
    from include.pipeline.flow import ENTRY, STAGES

    started = children()
    assert {child for _, child in started} >= {
        "include.ingestion.file_worker",
        "include.models.trial",
        "include.packaging.bento_build",
    }
    modules = memo._modules()
    for stage in STAGES:
        closure = {path for path, _ in memo._closure(ENTRY[stage])}
        lacking = {
            child
            for starter, child in started
            if modules[starter] in closure and modules[child] not in closure
        }
        assert lacking == set(), f"{stage} starts {lacking}, whose code its memo key leaves out"
    training = {path for path, _ in memo._closure("include.training.train_model")}
    assert modules["include.features.feast_online_store"] in training, (
        "a class that Feast loads by its name"
    )


@pytest.mark.parametrize("module", ["file_worker", "decompression"])
def test_an_edited_reader_of_files_misses(tree: Path, module: str) -> None:
    before = memo.code_digest("include.ingestion.ingest_data")
    path = tree / "include" / "ingestion" / f"{module}.py"
    path.write_text(path.read_text() + "\nEDITED = True\n")
    assert memo.code_digest("include.ingestion.ingest_data") != before


def test_blanks_around_the_name_of_a_query_hide_nothing(tree: Path) -> None:
    spaced = use_case_file.parse(TEXT.replace("sql: shop/orders.sql", 'sql: " shop/orders.sql "'))
    before = key(use_case=spaced)
    (tree / "feature_repo" / "sql" / "shop" / "orders.sql").write_text("SELECT 3")
    assert key(use_case=spaced) != before


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
    assert (
        key(use_case=use_case_file.parse(TEXT.replace("owner: shop-team", "owner: somebody")))
        == before
    )
    assert key(use_case=use_case_file.parse(TEXT.replace("delay: 5d", "delay: 4d"))) != before


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": [("shop/raw/orders", "2026-01-01", "sha256:b")]},
        {"inputs": []},
        {"libraries": ("duckdb", "pyarrow")},
        {"options": {"restate": "reason"}},
    ],
)
def test_what_is_read_counts(tree: Path, change: dict) -> None:
    assert key(**change) != key()


def test_the_order_of_reads_does_not_count(tree: Path) -> None:
    reads = [("a", "1", "x"), ("b", "2", "y")]
    assert key(inputs=reads) == key(inputs=reads[::-1])
