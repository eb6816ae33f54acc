"""Load history: a range of partitions, in one pass a stage, or the gap before a live partition."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from include.clock import utc_now
from include.config.settings import Settings
from include.config.use_case import UseCase
from include.config.use_case_file import find
from include.errors import ConfigError, SourceError
from include.pipeline.flow import DATA_STAGES
from include.pipeline.ranges import run_range
from include.pipeline.task_records import task_records
from include.point_in_time import partitions
from include.records.records import Records

log = logging.getLogger(__name__)


def plan_load(
    use_case: UseCase, first: str | None, last: str | None, now: datetime
) -> dict[str, list[str]]:
    """Return the keys that each data stage has to run for features from `first` to `last`.

    Ingestion and validation begin earlier, by what the views and the label look back on. Not given,
    `last` is the partition before the newest, and `first` what a training on the newest looks back
    on: the start of the history, or `training.window` and all that has to be known before it.

    Raises:
        ConfigError: the range is empty, or not complete yet.
    """
    newest = partitions.newest_complete(use_case, now)
    end = last or (partitions.earlier(use_case, newest) if newest else None)
    if end is None:
        raise ConfigError(
            f"{use_case.name} has no complete partition before its newest ({newest}); there is no "
            "history to load"
        )
    if partitions.period(use_case, end).as_of > now:
        raise ConfigError(
            f"partition {end} of {use_case.name} is not complete yet; end the range before it"
        )
    keys = partitions.between(use_case, first or first_of_training(use_case, newest or end), end)
    if not keys:
        raise ConfigError(f"the range {first} to {end} is empty; `first` must not be after `last`")
    validated = partitions.lookback(
        use_case, keys[0], max(view.lookback for view in use_case.features.values())
    )[0]
    ingested = partitions.lookback(use_case, validated, use_case.label.lookback)[0]
    return {
        "ingest_data": partitions.between(use_case, ingested, end),
        "validate_data": partitions.between(use_case, validated, end),
        "materialize_features": keys,
    }


def plan_missing(
    use_case: UseCase, records: Records, key: str, last: str | None, now: datetime
) -> dict[str, list[str]] | None:
    """Return what has to be loaded, by stage, so that `key` and all after it can be trained.

    It goes up to `last`; None where all of it is on record.
    """
    first = first_of_training(use_case, key)
    if last is not None and first > last:
        return None  # the training looks back on nothing before the partition itself
    steps = plan_load(use_case, first, last, now)
    states = records.results.states(use_case.name)
    is_loaded = all(
        states.get((stage, step_key)) in ("done", "blocked")
        for stage, keys in steps.items()
        for step_key in keys
    )
    return None if is_loaded else steps


def first_of_training(use_case: UseCase, key: str) -> str:
    """Return the oldest partition whose features and labels a training on `key` can need."""
    return partitions.training_lookback(use_case, key)[0]


def load_partitions(
    stage: str,
    settings: Settings,
    use_case: str,
    keys: Sequence[str],
    *,
    owner: str,
    attempt: int = 1,
    actor: str = "cli",
) -> dict[str, Any]:
    """Run a data stage over partitions in one pass, recorded as backfill, for their data only.

    Returns how many came to what, and the first reasons of those that did not end well.

    Raises:
        SourceError: not one partition of the range ended well.
    """
    records, now = task_records(settings), utc_now()
    # Whatever those on record are meant for, it is no less than this.
    records.partitions.add(use_case, keys, mode="backfill", target="data", actor=actor, at=now)
    counts: dict[str, int] = {}
    reasons: dict[str, str] = {}
    for report in run_range(
        stage, use_case, keys, settings=settings, owner=owner, attempt=attempt, actor=actor
    ):
        name = "reused" if report.reused and report.state == "done" else report.state
        counts[name] = counts.get(name, 0) + 1
        if report.state not in ("done", "skipped") and len(reasons) < 5:
            reasons[report.key] = report.reason
    for key, reason in reasons.items():
        log.warning("%s %s %s: %s", stage, use_case, key, reason)
    if keys and reasons and not counts.keys() & {"done", "reused", "skipped"}:
        first_reason = next(iter(reasons.values()))
        raise SourceError(
            f"{stage} of {use_case}: none of {len(keys)} partitions ended well; the first: "
            f"{first_reason}"
        )
    return (
        {"stage": stage, "first": keys[0], "last": keys[-1], **counts, "reasons": reasons}
        if keys
        else {"stage": stage}
    )


def find_gap(settings: Settings, use_case: str, key: str) -> list[str]:
    """Return the keys between the newest ingested partition before `key` and `key` itself.

    There are none on an empty installation, which has no history.
    """
    results = task_records(settings).results.of(use_case, stage="ingest_data")
    earlier = [row.key for row in results if row.state == "done" and row.key < key]
    if not earlier:
        return []
    # Without the two ends, which are ingested and about to be.
    return partitions.between(find(use_case, settings.usecase_dirs), max(earlier), key)[1:-1]


def load_gap(
    settings: Settings, use_case: str, key: str, *, owner: str, attempt: int = 1, actor: str = "cli"
) -> dict[str, Any]:
    """Load the days that nobody ran (machine off, DAG paused) before a live partition."""
    keys = find_gap(settings, use_case, key)
    if not keys:
        return {"loaded": 0}
    log.info(
        "%s: %d partitions between %s and %s were never run; loading them first",
        use_case,
        len(keys),
        keys[0],
        keys[-1],
    )
    for stage in DATA_STAGES:
        load_partitions(
            stage, settings, use_case, keys, owner=f"{owner}/{stage}", attempt=attempt, actor=actor
        )
    return {"loaded": len(keys), "first": keys[0], "last": keys[-1]}
