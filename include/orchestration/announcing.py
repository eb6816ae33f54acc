"""Emit the asset event that says how a release has ended, once, whatever hand ended it.

The event is in Airflow's database and the end in the records, so no transaction has both. Who is to
emit it says so first, by an audit row that only one hand can write; what was said and never came,
as its process died in between, is emitted by the next hand, which asks Airflow for it.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from include.errors import Busy, EvergreenError
from include.pipeline.flow import RELEASE_ENDED, asset_uri

if TYPE_CHECKING:
    from collections.abc import Mapping

    from include.config.settings import Settings
    from include.orchestration.airflow_api import AirflowApi
    from include.records.records import AuditRecord, Records, Release

log = logging.getLogger(__name__)

ANNOUNCED = "release.announced"
# A hand that has said so and is not done by then is dead: between the two it does nothing else.
CLAIM = timedelta(minutes=10)
# The run of a release sees its end within a look or two: it is left to say so by its own task.
OWN = timedelta(minutes=2)


def is_to_announce(settings: Settings, records: Records, release: Release, hand: str) -> bool:
    """Tell whether this hand is to emit the event of an end; from then on no other one does.

    `hand` names it, the same at each try of a task.

    Raises:
        Unavailable: somebody was to, and Airflow does not say whether that was done.
    """
    from include.orchestration.airflow_api import AirflowApi

    mark = _mark(records, release)
    if mark is None:
        return _claim(records, release, hand)
    if mark.details["hand"] != hand and mark.at > records.releases.now() - CLAIM:
        return False
    with AirflowApi(settings) as api:
        return not _is_emitted(_emitted(api, release.use_case), release)


def announce_missed(
    settings: Settings, use_case: str, *, hand: str, own: timedelta = OWN
) -> list[str]:
    """Emit the events of the ends that have none, such as where no run saw them; return which.

    An end younger than `own` is left to the run of its release, unless it had none any more.
    Whoever cannot leaves it to the next hand: it is logged, and nothing else fails by it.
    """
    from include.deployment.release_ends import new_ends
    from include.orchestration.airflow_api import AirflowApi
    from include.pipeline.task_records import task_records

    records, done = task_records(settings), list[str]()
    try:
        now = records.releases.now()
        ends = [one for one in new_ends(records, use_case, now) if _is_missed(one, now - own)]
        if not ends:
            return done
        lease = records.leases.claim(
            use_case, RELEASE_ENDED, "", owner=hand, attempt=1, ttl=settings.lease_seconds
        )
        with lease, AirflowApi(settings) as api:
            emitted = _emitted(api, use_case)
            for release in ends:
                if _is_emitted(emitted, release) or not _is_free(records, release, hand):
                    continue
                _emit(api, records, release)
                done.append(release.id)
    except Busy:
        log.info("%s: another process announces the ends of its releases", use_case)
    except EvergreenError as error:
        log.warning("%s: how its releases ended is not announced now: %s", use_case, error)
    return done


def _is_missed(release: Release, before: datetime) -> bool:
    """Tell whether no run says so any more: that of a candidate that waited has ended long ago."""
    return release.state == "superseded" or (
        release.ended_at is not None and release.ended_at <= before
    )


def _emit(api: AirflowApi, records: Records, release: Release) -> None:
    from include.deployment.release_ends import end_event

    uri = asset_uri(release.use_case, RELEASE_ENDED)
    api.emit(uri, release.partition, end_event(records, release))
    log.info("%s: the end of release %s is announced", release.use_case, release.id)


def _emitted(api: AirflowApi, use_case: str) -> set[tuple[str, str]]:
    """Return the ends that Airflow has an event of: the release, and as what it ended."""
    extras: list[Mapping[str, Any]] = [
        row.get("extra") or {} for row in api.events(asset_uri(use_case, RELEASE_ENDED))
    ]
    return {(str(extra.get("release")), str(extra.get("state"))) for extra in extras}


def _is_emitted(emitted: set[tuple[str, str]], release: Release) -> bool:
    return (release.id, release.state) in emitted


def _is_free(records: Records, release: Release, hand: str) -> bool:
    mark = _mark(records, release)
    if mark is None:
        return _claim(records, release, hand)
    return mark.at <= records.releases.now() - CLAIM


def _mark(records: Records, release: Release) -> AuditRecord | None:
    once = _once(release)
    rows = records.audit.entries(
        release.use_case, action=ANNOUNCED, subject=str(release.challenger), limit=20
    )
    return next((row for row in rows if row.once == once), None)


def _claim(records: Records, release: Release, hand: str) -> bool:
    """Say that this hand emits the event; tell whether no other one was faster."""
    from include.records.records import AuditEntry

    details = {"release": release.id, "end": release.state, "hand": hand}
    entry = AuditEntry(
        ANNOUNCED,
        release.use_case,
        str(release.challenger),
        hand,
        details,
        records.releases.now(),
        _once(release),
    )
    records.audit.append(entry)  # of two with one `once` the second is not written
    mark = _mark(records, release)
    return mark is not None and mark.details["hand"] == hand


def _once(release: Release) -> str:
    from include.deployment.release_ends import end_name

    return f"{ANNOUNCED}/{end_name(release)}"
