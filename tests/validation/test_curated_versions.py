"""A version of a static source is curated once, whichever partition comes first."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from include.pipeline.ingest_outputs import IngestOutputs
from include.pipeline.validation_outputs import CuratedSource
from include.validation.curated_versions import CuratedVersions
from tests.builders.intake import HEAD
from tests.ingestion.test_arrival import DAYS, line
from tests.ingestion.test_static_versions import Town


def test_a_version_is_curated_written_and_then_taken_from_the_record(tmp_path: Path) -> None:
    made = Town(tmp_path)
    made.move("Rome")
    made.put(HEAD + line(1, "01 10:00"))
    ingested = {key: IngestOutputs.of(made.ingest(key)).sources for key in DAYS[:2]}
    context: Any = SimpleNamespace(
        use_case=made.use_case, lake=made.lake, table=lambda name: f"shop/{name}", fence=None
    )

    def versions(earlier: list[CuratedSource], rules: str = "rules") -> CuratedVersions:
        return CuratedVersions(
            context, ingested, DAYS[:2], rules=rules, earlier=lambda name: earlier
        )

    first = versions([])
    (rows,) = first.unwritten("people")
    assert [row["town"] for row in rows.to_pylist()] == ["Rome"]
    assert first.profile(DAYS[1])["people: rows"] == 1
    assert first.unwritten("orders") == []
    recorded = first.write(context, "people", DAYS[0])
    assert (recorded.rows, recorded.version, first.unwritten("people")) == (1, DAYS[0], [])
    assert len(made.lake.read(str(recorded.table), keys=[DAYS[0]])) == 1
    version = made.lake.version(str(recorded.table))
    assert first.write(context, "people", DAYS[0]) == recorded, "the next day writes nothing"
    assert made.lake.version(str(recorded.table)) == version

    again = versions([recorded])
    assert again.unwritten("people") == []
    assert again.write(context, "people", DAYS[0]) == recorded
    assert again.profile(DAYS[0]) == first.profile(DAYS[0])
    assert len(versions([recorded], rules="others").unwritten("people")) == 1
