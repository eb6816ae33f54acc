"""Remove what no record of a use case needs any more: models' files, old files of the lake.

What stays is marked from the records; what is unmarked and older than 48 hours goes. First the
models that are to lose their files are marked so in their rows, in one transaction with the audit
row, under the lock of the routing row: a release either came before, and its model is marked, or
comes later and is refused. Then nothing is removed while a stage uses the files of models, and each
file is asked about once more right before. Killed anywhere, the next run finishes: it finds the
same garbage, for what is marked in the rows is still there.
"""

from __future__ import annotations

import logging
import os
import socket
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from include.clock import wait_for
from include.config.settings import Settings
from include.config.use_case import UseCase
from include.errors import Busy, EvergreenError
from include.lake.vacuum import KEPT_HOURS
from include.pipeline.lakes import open_lake
from include.predictions import retention as predictions
from include.records import audit
from include.records.records import AuditEntry, Records
from include.records.rows import locked
from include.records.schema import ModelRow, RouteRow
from include.retention import artefacts, lake_files, mlflow_entries, model_files, packages
from include.retention.garbage import Garbage, Place
from include.retention.left_behind import remove_outside, remove_where_unkept
from include.retention.marks import Version, mark, versions_of

log = logging.getLogger(__name__)

NAME = "collect_garbage"
ACTION = "garbage.collected"
EVIDENCE_DAYS = 30  # for which the windows of an ended release are kept
LISTED = 200  # names that an audit row holds of each kind but models


@dataclass
class Collected:
    """What a collection found and what it came to.

    `versions` lose their files now, `kept` says why each other version keeps its own. `removed` is
    the part of `found` that is gone; `put_off` says what was left for the next run, and why.
    """

    use_case: str
    found: list[Garbage] = field(default_factory=list)
    versions: list[int] = field(default_factory=list)
    kept: Mapping[int, str] = field(default_factory=dict)
    removed: list[Garbage] = field(default_factory=list)
    put_off: list[str] = field(default_factory=list)

    def totals(self, garbage: list[Garbage] | None = None) -> dict[str, dict[str, int]]:
        """Return count and bytes by kind, of all that was found or of some of it."""
        totals: dict[str, dict[str, int]] = {}
        for each in self.found if garbage is None else garbage:
            total = totals.setdefault(each.kind, {"count": 0, "bytes": 0})
            total["count"] += 1
            total["bytes"] += each.bytes
        return totals


def collect(
    settings: Settings,
    records: Records,
    use_case: UseCase,
    *,
    at: datetime,
    actor: str,
    dry_run: bool = False,
    wait: float = 0.0,
    hours: int = KEPT_HOURS,
) -> Collected:
    """Collect the garbage of a use case; with `dry_run` only find it. `at` is now.

    It waits up to `wait` seconds for the stages that use the files of models; those are left for
    the next run where they go on. `hours` is for how long replaced files of the lake stay.

    Raises:
        Busy: another collection of the use case is at work.
        Unavailable: MLflow, or the store of artefacts, does not answer.
        SourceError: the lake cannot be read or written.
    """
    owner = f"{NAME}@{socket.gethostname()}:{os.getpid()}"
    place = Place(settings, records, use_case, at, owner)
    if dry_run:
        return _find(place, hours)
    with records.leases.claim(
        use_case.name, NAME, "all", owner=owner, attempt=1, ttl=settings.lease_seconds
    ) as lease:
        collected = _find(place, hours)
        if collected.put_off and wait:  # nobody waits where nothing is to be removed
            wait_for(lambda: place.at_work() is None, seconds=wait, every=1.0)
            collected = _find(place, hours)
        _put_on_record(place, collected, actor)
        _finish_before(place)
        for garbage in collected.found:
            lease.check()
            _remove(place, collected, garbage)
        _tidy_predictions(place, collected, actor)
        records.nodes.forget_silent()
    remove_where_unkept(settings.home, at.timestamp())
    remove_outside(settings, use_case.name, at.timestamp())
    log.info("%s: %d of %d pieces of garbage removed", use_case.name, *_counts(collected))
    return collected


def _counts(collected: Collected) -> tuple[int, int]:
    return len(collected.removed), len(collected.found)


def _find(place: Place, hours: int) -> Collected:
    """Return what can go now; nothing is changed."""

    def read(session: Session) -> tuple[list[Version], dict[int, str]]:
        newest = place.use_case.retention.models
        return versions_of(session, place.name), mark(session, place.name, newest=newest)

    versions, kept = place.records.database.read(read)
    collected = Collected(place.name, kept=kept)
    doomed = model_files.find_collectable(place, versions, kept)
    gone = frozenset(each.version for each in doomed)
    of_models = [
        *artefacts.find_garbage(place, versions, gone),
        *model_files.find_garbage(place, versions, gone),
        *packages.find_garbage(place, versions, gone),
        *mlflow_entries.find_garbage(place, versions, gone),
    ]
    if of_models and (working := place.at_work()) is not None:
        collected.put_off.append(f"{len(of_models)} pieces of models: {working}")
    else:
        collected.versions, collected.found = sorted(gone), of_models
    collected.found += lake_files.find_garbage(place, hours=hours)
    collected.found += _expired_predictions(place)
    collected.found += _old_windows(place)
    return collected


def _expired_predictions(place: Place) -> Iterator[Garbage]:
    """Yield the days of predictions that are too old; `tidy` removes them, told in its own row."""
    lake = open_lake(place.settings)
    days = predictions.count_expired(place.settings, lake, place.use_case, at=place.at)
    for day, rows in sorted(days.items()):
        why = "older than log.retention"
        yield Garbage("predictions", f"{rows} rows of {day}", 0, why, lambda: True)


def _old_windows(place: Place) -> Iterator[Garbage]:
    """Yield the evidence of releases that are long over; what was made of it is their verdicts."""
    releases = place.records.releases
    before = place.at - timedelta(days=EVIDENCE_DAYS)
    for release, count in releases.finished(place.name, before).items():

        def remove(release: str = release) -> bool:
            releases.remove_windows(place.name, release)
            return True

        why = f"the release ended more than {EVIDENCE_DAYS} days ago"
        yield Garbage("windows", f"{count} windows of {release}", 0, why, remove)


def _put_on_record(place: Place, collected: Collected, actor: str) -> None:
    """Mark the models that lose their files, and write the audit row, in one transaction.

    What was released, or put on hold, since they were found keeps them.
    """

    once = f"{ACTION}/{uuid.uuid4().hex}"  # a retry after a lost answer finds the row

    def work(session: Session) -> list[int]:
        locked(session, RouteRow, place.name)  # no release commits meanwhile
        # Asked in here: a stage that claims its lease later finds the marks.
        if collected.versions and (working := place.at_work()) is not None:
            audit.append(session, _entry(place, collected, [], actor, once))
            collected.put_off.append(f"the models {collected.versions}: {working}")
            return []
        # A first release has made the routing row meanwhile, or waits for these rows.
        for version in sorted(collected.versions):
            locked(session, ModelRow, place.name, version)
        kept = mark(session, place.name, newest=place.use_case.retention.models)
        versions = {each.version: each for each in versions_of(session, place.name)}
        shared = {
            model_files.files_of(place, each) for each in versions.values() if each.version in kept
        }
        doomed = [
            version
            for version in collected.versions
            if version not in kept
            and version in versions
            and model_files.files_of(place, versions[version]) not in shared
        ]
        for version in doomed:
            row = locked(session, ModelRow, place.name, version)
            if row is not None:
                row.collected_at = place.at
        audit.append(session, _entry(place, collected, doomed, actor, once))
        return doomed

    collected.versions = place.records.database.write(work)
    collected.found = _without(collected.found, collected.versions)


def _without(found: list[Garbage], doomed: list[int]) -> list[Garbage]:
    """Return what was found without that of versions which are kept after all."""
    return [each for each in found if each.version is None or each.version in doomed]


def _entry(
    place: Place, collected: Collected, doomed: list[int], actor: str, once: str
) -> AuditEntry:
    found = _without(collected.found, doomed)
    names: dict[str, list[str]] = {}
    for each in found:
        if each.kind != "models" or each.version is None:
            names.setdefault(each.kind, []).append(each.name)
    details: dict[str, Any] = {
        "versions": doomed,
        "kinds": collected.totals(found),
        "names": {kind: listed[:LISTED] for kind, listed in names.items()},
        "kept": len(collected.kept),
        "put_off": collected.put_off,
    }
    day = f"{place.at:%Y-%m-%d}"
    return AuditEntry(ACTION, place.name, day, actor, details, place.at, once)


def _finish_before(place: Place) -> None:
    """Finish what killed collections began, where nobody uses the files of models."""
    if place.at_work() is None:
        for part in (artefacts, model_files, packages, mlflow_entries):
            part.finish(place)


def _remove(place: Place, collected: Collected, garbage: Garbage) -> None:
    """Remove one piece; what cannot be removed now is left for the next run."""
    if garbage.kind == "predictions":
        return
    if garbage.kind not in ("lake", "windows") and (working := place.at_work()) is not None:
        collected.put_off.append(f"{garbage.kind} {garbage.name}: {working}")
        return
    try:
        if garbage.remove():
            collected.removed.append(garbage)
        else:
            collected.put_off.append(f"{garbage.kind} {garbage.name}: it is needed, or in use")
    except (EvergreenError, OSError) as error:
        # One that cannot be removed keeps no other.
        log.warning("%s: %s is not removed: %s", place.name, garbage.name, error)
        collected.put_off.append(f"{garbage.kind} {garbage.name}: {error}")


def _tidy_predictions(place: Place, collected: Collected, actor: str) -> None:
    try:
        predictions.tidy(
            place.settings,
            open_lake(place.settings),
            place.records,
            place.use_case,
            at=place.at,
            actor=actor,
        )
    except Busy as error:
        collected.put_off.append(f"predictions: {error}")
        return
    collected.removed += [each for each in collected.found if each.kind == "predictions"]
