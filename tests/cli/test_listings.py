"""What the listing commands print: flat objects with `--json`, models, partitions that are
lookback.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from include.cli import models, records
from include.config.settings import settings
from include.pipeline import history
from include.pipeline.flow import CHAIN, GOAL
from include.pipeline.status import LOOKBACK, StatusRow, rows
from include.records.records import AuditEntry, Model, Partition, Records, StageResult
from tests.cli import test_app as test_cli
from tests.cli.test_app import YAML, Run, write_day

run = test_cli.run

AT = datetime(2025, 3, 9, tzinfo=UTC)
INGESTED, VALIDATED, COMPUTED = DATA = CHAIN[: CHAIN.index(GOAL["data"]) + 1]
JUDGED = GOAL["judged"]


def opened() -> Records:
    """Return the records of the installation that `run` uses."""
    found = Records.open(settings().records_address)
    settings().home.mkdir(parents=True, exist_ok=True)
    found.migrate()
    return found


def result(key: str, stage: str, *, state: str = "done", **outputs: Any) -> StageResult:
    return StageResult(
        "visits",
        key,
        stage,
        state,
        f"{stage} {key}",
        "",
        outputs,
        [],
        "m",
        "live",
        AT,
        AT,
        0.1,
        "none",
    )


def record(into: Records, made: StageResult) -> None:
    with into.leases.claim(
        "visits", made.stage, made.key, owner="test", attempt=1, ttl=30
    ) as lease:
        into.results.commit(lease, made)


def add_model(into: Records, version: int, key: str) -> None:
    digest = f"sha256:{version:064}"
    into.models.add(
        Model("visits", version, digest, key, AT, "live", "fs1", "bundle", state="challenger")
    )


def listed(run: Run, *arguments: object) -> list[dict[str, Any]]:
    """Return what a command prints as JSON; nothing else stands on standard output."""
    done = run(*arguments, "--json")
    assert done.code == 0, done
    found: list[dict[str, Any]] = json.loads(done.out)
    assert all(not isinstance(value, dict | list) for row in found for value in row.values())
    return found


@pytest.fixture
def visits(tmp_path: Path) -> Path:
    """Write the use case `visits` and its days, the third of which has bad rows."""
    (tmp_path / "visits.yaml").write_text(YAML)
    for day in range(test_cli.DAYS):
        write_day(tmp_path, day, bad=3 if day == 2 else 0)
    return tmp_path


def test_an_empty_installation_lists_nothing(run: Run, visits: Path) -> None:
    for words in ("status visits", "models visits", "audit list", "quarantine list visits"):
        assert listed(run, *words.split()) == []
    told = run("models", "visits")
    assert (told.code, "no model yet; `evergreen run all --use-case visits" in told.out) == (
        0,
        True,
    )


def test_lists_are_flat_objects_with_stable_keys(run: Run, visits: Path) -> None:
    assert run("load-history", "visits", "--to", "2025-03-04").code == 0
    shown = listed(run, "status", "visits")
    assert [tuple(row) for row in shown] == [records.STATUS_KEYS] * 8
    assert [row["state"] for row in shown] == ["done"] * 4 + ["missing"] * 4
    assert (shown[0]["detail"], shown[-1]["mode"], shown[-1]["target"]) == (None, None, None)

    bad = listed(run, "quarantine", "list", "visits", "--limit", "2")
    assert [tuple(row) for row in bad] == [records.QUARANTINE_KEYS] * 2
    assert [(row["partition"], row["row"], row["redriven_into"]) for row in bad] == [
        ("2025-03-03", 1, None),
        ("2025-03-03", 2, None),
    ]
    assert json.loads(bad[0]["values"])["visit_id"] == "80"

    rows = listed(run, "audit", "list", "--action", "partition.raised", "-n", "1")
    assert [tuple(row) for row in rows] == [records.AUDIT_KEYS]
    assert datetime.fromisoformat(rows[0]["at"]).utcoffset() == datetime.now(UTC).utcoffset()
    assert json.loads(rows[0]["details"])["after"] == ["backfill", "data"]
    assert run("quarantine", "list", "visits", "--json", "--csv", visits / "x.csv").code == 2


def test_status_as_json_has_every_partition(run: Run, visits: Path) -> None:
    text = YAML.replace("first: 2025-03-01", "first: 2025-02-01")
    (visits / "visits.yaml").write_text(text)
    opened().partitions.raise_to(
        "visits", "2025-02-01", mode="backfill", target="data", actor="test", at=AT
    )
    assert len(listed(run, "status", "visits")) == 36


def test_models_tell_how_each_was_judged_and_what_it_serves_as(run: Run, visits: Path) -> None:
    into = opened()
    for version in range(1, 6):
        add_model(into, version, f"2025-03-0{version}")
    for version, metrics, told in (
        (2, {"auc": 0.8}, "pass"),
        (3, {"auc": float("nan")}, "hold"),
        (4, {"auc": 0.9}, "pass"),
    ):
        record(
            into,
            result(f"2025-03-0{version}", JUDGED, version=version, verdict=told, metrics=metrics),
        )
    record(into, result("2025-03-05", JUDGED, state="unreadable", version=5, metrics={}))

    def release(**changes: int) -> None:
        into.routes.change(
            "visits", set=changes, entry=AuditEntry("release.done", "visits", "1", "test", {}, AT)
        )

    release(champion=1)
    release(champion=2, previous=1)
    into.routes.rollback(
        "visits", entry=AuditEntry("route.rolled_back", "visits", "2", "test", {}, AT)
    )
    into.models.update("visits", 4, state="candidate")
    found = listed(run, "models", "visits")
    assert [tuple(row) for row in found] == [models.KEYS] * 5
    assert [row["version"] for row in found] == [5, 4, 3, 2, 1]
    assert [row["verdict"] for row in found] == ["hold", "pass", "hold", "pass", None]
    assert [row["auc"] for row in found] == [None, 0.9, None, 0.8, None]
    assert [row["serves_as"] for row in found] == [None, None, None, None, "champion"]
    assert [row["on_hold"] for row in found] == [False, False, False, True, False]
    assert [row["state"] for row in found][-2:] == ["retired", "released"]
    lines = run("models", "visits").out.splitlines()
    assert lines[0].split() == [
        "version",
        "partition",
        "state",
        "mode",
        "AUC",
        "verdict",
        "serves",
        "as",
        "feature",
        "set",
        "digest",
        "on",
        "hold",
    ]
    assert lines[4].split() == [
        "2",
        "2025-03-02",
        "retired",
        "live",
        "0.8000",
        "pass",
        "-",
        "fs1",
        "0" * 12,
        "yes",
    ]
    assert "0.8000" in run("status", "visits").out


def test_a_champion_its_predecessor_and_a_challenger_are_told_apart(run: Run, visits: Path) -> None:
    into = opened()
    for version in (1, 2, 3):
        add_model(into, version, f"2025-03-0{version}")
    for changes in ({"champion": 1}, {"champion": 2, "previous": 1}, {"challenger": 3}):
        into.routes.change(
            "visits", set=changes, entry=AuditEntry("release.done", "visits", "1", "test", {}, AT)
        )
    assert [row["serves_as"] for row in listed(run, "models", "visits")] == [
        "challenger",
        "champion",
        "previous",
    ]


def test_what_is_loaded_as_lookback_is_done_and_what_the_load_needs_is_waited_for(
    run: Run, visits: Path
) -> None:
    """The label looks back on all days, features on three: the load of the 6th and 7th validates
    from the 4th.
    """
    assert run("load-history", "visits", "--from", "2025-03-06").code == 0
    shown = listed(run, "status", "visits")[:7]
    assert {row["state"] for row in shown} == {"done"}
    assert [row["stage"] for row in shown] == [INGESTED] * 3 + [VALIDATED] * 2 + [COMPUTED] * 2
    assert [row["detail"] for row in shown] == [LOOKBACK] * 5 + [None] * 2
    assert run("run", VALIDATED, "-u", "visits", "-p", "2025-03-03").code == 0, (
        "asked for by a person"
    )
    asked = listed(run, "status", "visits")[2]
    assert (asked["state"], asked["stage"], asked["target"]) == ("waiting", COMPUTED, "judged")


def test_a_load_that_stopped_halfway_is_waited_for(run: Run, visits: Path) -> None:
    keys = [f"2025-03-0{day}" for day in range(1, 8)]
    opened()
    history.load_partitions(INGESTED, settings(), "visits", keys, owner="test")
    assert [(row["state"], row["stage"]) for row in listed(run, "status", "visits")[:7]] == [
        ("waiting", VALIDATED)
    ] * 7
    history.load_partitions(VALIDATED, settings(), "visits", keys[3:], owner="test")
    waited = [(row["state"], row["stage"]) for row in listed(run, "status", "visits")[:7]]
    assert waited == [("waiting", VALIDATED)] * 3 + [("waiting", COMPUTED)] * 4
    history.load_partitions(COMPUTED, settings(), "visits", keys[5:6], owner="test")
    waited = [(row["state"], row["stage"]) for row in listed(run, "status", "visits")[:7]]
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
    into = opened()
    into.partitions.raise_to(
        "visits", "2025-03-01", mode="backfill", target="data", actor="test", at=AT
    )
    for stage in DATA:
        record(into, result("2025-03-01", stage))
    (visits / "visits.yaml").write_text(YAML.replace("first: 2025-03-01", "first: 2025-03-03"))
    done = run("status", "visits")
    assert done.code in (0, 2), done
    assert "Traceback" not in done.err
