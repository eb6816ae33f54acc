"""A record changes for a reason alone, and the reason is on the audit log."""

from __future__ import annotations

from pathlib import Path

from tests.builders.intake import HEAD
from tests.ingestion.test_arrival import DAYS, line
from tests.ingestion.test_static_versions import PEOPLE, Town


def test_a_source_that_is_declared_or_taken_out_later_is_on_the_audit_record(
    tmp_path: Path,
) -> None:
    made = Town(tmp_path)
    made.put(HEAD + line(1, "01 10:00"))
    made.move("Rome")
    made.ingest(DAYS[0])
    path = made.folder / "shop.yaml"
    whole = path.read_text()
    path.write_text(whole.replace(PEOPLE, "label:"))
    made.ingest(DAYS[0])
    path.write_text(whole)
    made.ingest(DAYS[0])
    told = [
        entry.details for entry in made.records.audit.entries("shop", action="partition.redeclared")
    ]
    assert sorted((one["added"], one["removed"]) for one in told) == [
        ([], ["people"]),
        (["people"], []),
    ]
