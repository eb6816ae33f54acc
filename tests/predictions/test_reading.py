"""Reading segments: in chunks, and refused as a whole where somebody needs all of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.errors import SourceError
from include.predictions import reading
from include.predictions.log import Segment, closed_segments
from include.predictions.reading import BadLine, read, stream
from tests.builders.logged import version_1, write_segment


def test_rows_come_in_chunks_that_may_span_segments(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "CHUNK", 4)
    write_segment(tmp_path, 0, 1, 2)
    write_segment(tmp_path, 3, 4, 5)
    ended: list[tuple[str, int]] = []

    def note(segment: Segment, bad: list[BadLine]) -> None:
        ended.append((segment.name, len(bad)))

    segments = closed_segments(tmp_path, "loans")
    batches = list(stream(segments, note, lambda *_: None))
    assert [len(batch) for batch in batches] == [4, 2]
    assert ended == [(segment.name, 0) for segment in segments]
    assert batches[0].column("line").to_pylist() == [0, 1, 2, 0]


def test_a_file_that_is_too_large_for_a_segment_is_not_taken_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    with path.open("wb") as file:
        file.truncate(reading.MAX_SEGMENT + 1)  # without a block on the disk
    refused: list[str] = []

    def note(segment: Segment, error: OSError) -> None:
        refused.append(f"{segment.name}: {error.strerror}")

    assert list(stream([Segment("loans", "s", path)], lambda *_: None, note)) == []
    assert refused == ["s: it is larger than any that a node writes"]


def test_who_needs_all_lines_is_told_of_the_first_that_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_bytes(version_1() + b"{}\n")
    with pytest.raises(SourceError, match=r"s\.jsonl, line 2: .*missing required field"):
        read([Segment("loans", "s", path)])
    with pytest.raises(SourceError, match="cannot be read"):
        read([Segment("loans", "gone", tmp_path / "gone.jsonl")])
    assert read([]).num_rows == 0
