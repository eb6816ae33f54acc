"""What serving nodes report: the last report of each."""

from __future__ import annotations

from include.records.records import Records
from tests.records.builders import (
    AT,
)


def test_a_node_reports_and_replaces_its_report(records: Records) -> None:
    for generation, node in ((1, "b"), (1, "a"), (2, "b")):
        records.nodes.observe(
            "loans",
            node,
            generation=generation,
            state="serving",
            detail={"champion": generation},
            at=AT,
        )
    assert [(row.node, row.generation, row.detail) for row in records.nodes.of("loans")] == [
        ("a", 1, {"champion": 1}),
        ("b", 2, {"champion": 2}),
    ]
    records.nodes.observe(
        "loans", "a", generation=3, state="failed", detail="golden rows differ", at=AT
    )
    assert records.nodes.of("loans")[0].detail == "golden rows differ"
    assert records.nodes.of("other") == []
