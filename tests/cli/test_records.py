"""The commands that read what is on record, as tables and as JSON."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from include.cli import quarantine, records
from include.config.settings import settings
from include.pipeline import history
from include.pipeline.flow import CHAIN, GOAL
from include.pipeline.status import LOOKBACK, StatusRow, rows
from include.records.records import Partition
from tests.builders.command_line import (
    AT,
    YAML,
    Run,
    list_rows,
    open_records,
    record,
    result,
)

INGESTED, VALIDATED, COMPUTED = DATA = CHAIN[: CHAIN.index(GOAL["data"]) + 1]
JUDGED = GOAL["judged"]


def test_an_empty_installation_lists_nothing(run: Run, visits: Path) -> None:
    for words in ("status visits", "models visits", "audit list", "quarantine list visits"):
        assert list_rows(run, *words.split()) == []
    told = run("models", "visits")
    assert (told.code, "no model yet; `evergreen run all --use-case visits" in told.out) == (
        0,
        True,
    )


@pytest.mark.slow
def test_lists_are_flat_objects_with_stable_keys(run: Run, visits: Path) -> None:
    assert run("load-history", "visits", "--to", "2025-03-04").code == 0
    shown = list_rows(run, "status", "visits")
    assert [tuple(row) for row in shown] == [records.STATUS_KEYS] * 8
    assert [row["state"] for row in shown] == ["done"] * 4 + ["missing"] * 4
    assert (shown[0]["detail"], shown[-1]["mode"], shown[-1]["target"]) == (None, None, None)

    bad = list_rows(run, "quarantine", "list", "visits", "--limit", "2")
    assert [tuple(row) for row in bad] == [quarantine.LIST_KEYS] * 2
    assert [(row["partition"], row["row"], row["redriven_into"]) for row in bad] == [
        ("2025-03-03", 1, None),
        ("2025-03-03", 2, None),
    ]
    assert json.loads(bad[0]["values"])["visit_id"] == "80"

    rows = list_rows(run, "audit", "list", "--action", "partition.raised", "-n", "1")
    assert [tuple(row) for row in rows] == [records.AUDIT_KEYS]
    assert datetime.fromisoformat(rows[0]["at"]).utcoffset() == datetime.now(UTC).utcoffset()
    assert json.loads(rows[0]["details"])["after"] == ["backfill", "data"]
    assert run("quarantine", "list", "visits", "--json", "--csv", visits / "x.csv").code == 2


def test_status_as_json_has_every_partition(run: Run, visits: Path) -> None:
    text = YAML.replace("first: 2025-03-01", "first: 2025-02-01")
    (visits / "visits.yaml").write_text(text)
    open_records().partitions.raise_to(
        "visits", "2025-02-01", mode="backfill", target="data", actor="test", at=AT
    )
    assert len(list_rows(run, "status", "visits")) == 36


def test_what_is_loaded_as_lookback_is_done_and_what_the_load_needs_is_waited_for(
    run: Run, visits: Path
) -> None:
    """The label looks back on all days, features on three: the load of the 6th and 7th validates
    from the 4th.
    """
    assert run("load-history", "visits", "--from", "2025-03-06").code == 0
    shown = list_rows(run, "status", "visits")[:7]
    assert {row["state"] for row in shown} == {"done"}
    assert [row["stage"] for row in shown] == [INGESTED] * 3 + [VALIDATED] * 2 + [COMPUTED] * 2
    assert [row["detail"] for row in shown] == [LOOKBACK] * 5 + [None] * 2
    assert run("run", VALIDATED, "-u", "visits", "-p", "2025-03-03").code == 0, (
        "asked for by a person"
    )
    asked = list_rows(run, "status", "visits")[2]
    assert (asked["state"], asked["stage"], asked["target"]) == ("waiting", COMPUTED, "judged")


def test_a_load_that_stopped_halfway_is_waited_for(run: Run, visits: Path) -> None:
    keys = [f"2025-03-0{day}" for day in range(1, 8)]
    open_records()
    history.load_partitions(INGESTED, settings(), "visits", keys, owner="test")
    assert [(row["state"], row["stage"]) for row in list_rows(run, "status", "visits")[:7]] == [
        ("waiting", VALIDATED)
    ] * 7
    history.load_partitions(VALIDATED, settings(), "visits", keys[3:], owner="test")
    waited = [(row["state"], row["stage"]) for row in list_rows(run, "status", "visits")[:7]]
    assert waited == [("waiting", VALIDATED)] * 3 + [("waiting", COMPUTED)] * 4
    history.load_partitions(COMPUTED, settings(), "visits", keys[5:6], owner="test")
    waited = [(row["state"], row["stage"]) for row in list_rows(run, "status", "visits")[:7]]
    done = [("done", INGESTED)] * 3 + [("done", VALIDATED)] * 2 + [("done", COMPUTED)]
    assert waited == [*done, ("waiting", COMPUTED)]


def known(key: str, done: tuple[str, ...], **loaded: Any) -> StatusRow:
    """Return what a partition for its data is, of which some stages are recorded."""
    (row,) = rows(
        "visits",
        partitions=[Partition("visits", key, "backfill", "data", "test", AT)],
        results=[result(key, stage) for stage in done],
        running={},
        **loaded,
    )
    return row


def test_lookback_is_what_the_load_of_the_oldest_features_asked_no_more_of() -> None:
    first, second, third = "2025-03-01", "2025-03-02", "2025-03-03"
    loaded = {INGESTED: [first, second, third], VALIDATED: [second, third], COMPUTED: [third]}
    assert known(first, (INGESTED,), loaded=loaded) == StatusRow(
        first, "done", INGESTED, LOOKBACK, "backfill", "data"
    )
    assert known(second, (INGESTED,), loaded=loaded).kind == "waiting", (
        "the features of the third look back on it"
    )
    assert known(second, (INGESTED, VALIDATED), loaded=loaded).kind == "done"
    assert known(third, (INGESTED, VALIDATED), loaded=loaded).kind == "waiting"
    assert known("2025-02-01", (INGESTED,), loaded=loaded).kind == "waiting", "no load asked for it"
    assert known(first, (INGESTED,)).kind == "waiting"
    assert known(first, (), loaded=loaded).stage == INGESTED


def test_a_history_that_begins_later_now_does_not_end_the_command(run: Run, visits: Path) -> None:
    into = open_records()
    into.partitions.raise_to(
        "visits", "2025-03-01", mode="backfill", target="data", actor="test", at=AT
    )
    for stage in DATA:
        record(into, result("2025-03-01", stage))
    (visits / "visits.yaml").write_text(YAML.replace("first: 2025-03-01", "first: 2025-03-03"))
    done = run("status", "visits")
    assert done.code in (0, 2), done
    assert "Traceback" not in done.err
