"""What the tests of releases build: a champion, a candidate, a release that has come so far."""

from __future__ import annotations

from typing import Any

from include.records.audit import AuditEntry
from include.records.records import Records, Release
from tests.records.builders import entry, model

PLAN: dict[str, Any] = {
    "steps": [{"share": 0}, {"share": 500}, {"share": 2500}],
    "watch": 86_400.0,
}


def serve(records: Records) -> None:
    """Let model 2 serve, after model 1; models 3 and 4 are trained since."""
    for version in (1, 2):
        records.models.add(model(version, generation=version - 1))
        previous = records.routes.get("loans").champion
        records.routes.change(
            "loans",
            set={"champion": version, "previous": previous},
            entry=entry("deployed"),
            partition=f"2026-03-{version:02d}",
        )
    for version in (3, 4):
        records.models.add(model(version, generation=2))


def asked(records: Records, version: int = 3, **changes: Any) -> dict[str, Any]:
    """Return what a release of a version is requested, or queued, with."""
    found = records.models.get("loans", version)
    assert found is not None
    route = records.routes.get("loans")
    return {
        "partition": found.partition,
        "model": found,
        "opponent": route.champion,
        "judged_generation": route.generation,
        "plan": PLAN,
        "description": None,
        **changes,
    }


def requested(
    records: Records, version: int = 3, *, by: AuditEntry | None = None, **changes: Any
) -> Release:
    """Request the release of a version."""
    return records.releases.request(
        "loans", **asked(records, version, **changes), entry=by or entry("requested")
    )


def in_step(records: Records, step: int, version: int = 3, **changes: Any) -> Release:
    """Bring the release of a version to a step; -1: it is only tried."""
    release = requested(records, version, **changes)
    if step >= 0:
        release = records.releases.begin(release, entry("begun"))
    for _ in range(step):
        release = records.releases.advance(release, {"word": "pass"}, entry("advanced"))
    return release


def watched(records: Records, version: int = 3, **changes: Any) -> Release:
    """Bring the release of a version so far that its model is champion and watched."""
    release = in_step(records, 2, version, **changes)
    return records.releases.promote(release, entry("promoted"), None)
