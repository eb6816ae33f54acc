"""The command that lists models: how each was judged, and what it serves as."""

from __future__ import annotations

from pathlib import Path

from include.cli import models
from include.pipeline.flow import CHAIN, GOAL
from include.records.records import AuditEntry
from tests.builders.command_line import (
    AT,
    Run,
    add_model,
    list_rows,
    open_records,
    record,
    result,
)

INGESTED, VALIDATED, COMPUTED = DATA = CHAIN[: CHAIN.index(GOAL["data"]) + 1]
JUDGED = GOAL["judged"]


def test_models_tell_how_each_was_judged_and_what_it_serves_as(run: Run, visits: Path) -> None:
    into = open_records()
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
    found = list_rows(run, "models", "visits")
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
    into = open_records()
    for version in (1, 2, 3):
        add_model(into, version, f"2025-03-0{version}")
    for changes in ({"champion": 1}, {"champion": 2, "previous": 1}, {"challenger": 3}):
        into.routes.change(
            "visits", set=changes, entry=AuditEntry("release.done", "visits", "1", "test", {}, AT)
        )
    assert [row["serves_as"] for row in list_rows(run, "models", "visits")] == [
        "challenger",
        "champion",
        "previous",
    ]
