"""However a load is cut into chunks and batches, it comes to the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.features import materialize_features
from include.ingestion import ingest_data
from include.pipeline import settling
from include.validation import validate_data
from tests.builders.installation import Installation, small_repayment

FIRST, LAST = "2026-01-01", "2026-01-16"


def load(home: Path) -> Installation:
    small_repayment(home / "usecases", 60)
    made = Installation(home)
    made.load(FIRST, LAST)
    return made


@pytest.mark.slow
def test_chunks_and_batches_of_any_size_give_equal_digests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels and views look back over the cuts, on rows that have just been written."""
    whole = load(tmp_path / "whole")
    monkeypatch.setattr(ingest_data, "CHUNK_ROWS", 60)  # two or three days
    monkeypatch.setattr(validate_data, "CHUNK_ROWS", 40)
    monkeypatch.setattr(materialize_features, "CHUNK", 5)
    monkeypatch.setattr(settling, "BATCH", 2)
    cut = load(tmp_path / "cut")
    assert len(cut.digests()) > 60
    assert cut.digests() == whole.digests()
    results = [
        {
            (row.stage, row.key): (row.state, row.digest)
            for row in made.records.results.of(made.name)
        }
        for made in (cut, whole)
    ]
    assert results[0] == results[1]
    versions = [made.lake.version("repayment/raw/instalments") for made in (whole, cut)]
    assert versions[0] == 0
    assert versions[1] >= 7, "a commit a batch"
