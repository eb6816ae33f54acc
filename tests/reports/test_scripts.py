"""The charts' scripts: kept once, whole, and left out where Plotly is not installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import plotly
import pytest

from include.reports import scripts


def test_scripts_are_stored_once_and_kept(tmp_path: Path) -> None:
    first = scripts.store_scripts(tmp_path)
    assert [path.name.partition("-")[0] for path in first] == ["plotly", "charts"]
    assert first[0].name == f"plotly-{plotly.__version__}.min.js"
    assert first[0].read_text(encoding="utf-8").startswith("/**\n* plotly.js v2")
    times = [path.stat().st_mtime_ns for path in first]
    assert scripts.store_scripts(tmp_path) == first
    assert [path.stat().st_mtime_ns for path in first] == times
    assert sorted((tmp_path / scripts.FOLDER).iterdir()) == sorted(first)


def test_a_script_that_was_removed_comes_back(tmp_path: Path) -> None:
    first = scripts.store_scripts(tmp_path)
    first[1].unlink()
    assert all(path.is_file() for path in scripts.store_scripts(tmp_path))


def test_without_plotly_there_are_no_scripts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    scripts.sources.cache_clear()
    try:
        assert scripts.store_scripts(tmp_path) == []
    finally:
        scripts.sources.cache_clear()
    assert not (tmp_path / scripts.FOLDER).exists()
