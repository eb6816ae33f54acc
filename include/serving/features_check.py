"""Whether the features that a challenger reads are online: asked before it may be promoted."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from include.clock import utc_now
from include.config.durations import midnight, next_period_start
from include.deployment.description import Description
from include.errors import EvergreenError, Unavailable
from include.features.online_rows import OnlineSet
from include.features.online_stores import OnlineStore
from include.models.encoding import InvalidFeature
from include.serving.snapshot import Loaded
from include.serving.workers import Workers

SAMPLE = 20  # entities that are scored


@dataclass(frozen=True, slots=True)
class OnlineCheck:
    """What is online for a challenger: the share of the entities alive, and some rows of these.

    `alive` is how many they are; `whose` says by which features that is known.
    """

    alive: int
    share: float
    whose: str
    rows: Sequence[Mapping[str, Any]]


async def check_challenger(
    store: OnlineStore,
    workers: Workers,
    use_case: Description,
    champions: str | None,
    loaded: Loaded,
) -> None:
    """Refuse a challenger whose features are not online, as far as its use case keeps any.

    `store` is one of its own, which another thread asks and closes; `champions` is the champion's
    feature set, None where there is no champion.

    Raises:
        Unavailable: they are not, or not for enough entities, or their rows are not scored.
    """
    if not any(view.online for view in use_case.features.values()):
        return
    check = await workers.run(
        "trial", look_online, store, loaded.feature_set, champions, use_case, utc_now()
    )
    refuse_too_few(check, loaded.feature_set, use_case.online_share)
    await score_rows(loaded, check.rows)


def look_online(
    store: OnlineStore, feature_set: str, of: str | None, use_case: Description, now: datetime
) -> OnlineCheck:
    """Return what is online of a feature set, for the entities alive by the set `of` the champion.

    An entity is alive whose features have not expired `now`, or any that is online where the use
    case scores expired ones. Where the champion's set has none, or there is no champion, they are
    those that were alive when this very set's partition was published.

    Raises:
        Unavailable: nothing of it is online, or the store does not answer.
    """
    horizon = _micros(use_case.calendar.horizon(now))
    with closing(store):
        online_set = store.describe(feature_set)
        if online_set is None:
            raise Unavailable(
                f"its feature set {feature_set} is not online; run materialize_features for the "
                "newest partition"
            )
        since = _oldest(online_set, use_case, horizon)
        champions = store.describe(of) if of is not None and of != feature_set else None
        alive, whose = 0, "of the champion's entities"
        if champions is not None:
            both = (_oldest(champions, use_case, horizon), since)
            alive, covered = store.shared(champions.feature_set, feature_set, since=both)
        if not alive:
            at_publication = _oldest(online_set, use_case, _published(online_set, use_case))
            alive, whose = store.count(feature_set, since=at_publication), "of its entities"
            covered = min(alive, store.count(feature_set, since=since))
        rows = [
            dict(zip(online_set.columns, values, strict=False))
            for values in store.sample(feature_set, SAMPLE, since=since)
        ]
    return OnlineCheck(alive, covered / alive if alive else 0.0, whose, rows)


def _published(online_set: OnlineSet, use_case: Description) -> int:
    """Return the `as_of` of the partition that is online, in microseconds since 1970."""
    calendar = use_case.calendar
    end = next_period_start(calendar.cadence, date.fromisoformat(online_set.partition))
    return _micros(midnight(end) + calendar.cut_off)


def _oldest(online_set: OnlineSet, use_case: Description, horizon: int) -> int:
    """Return the oldest event time, in microseconds since 1970, of a row that is answered."""
    if use_case.fallback.stale == "score":
        return -(1 << 62)
    return horizon - online_set.ttl // timedelta(microseconds=1)


def _micros(moment: datetime) -> int:
    return round(moment.timestamp() * 1e6)


def refuse_too_few(check: OnlineCheck, feature_set: str, least: float) -> None:
    """Refuse a challenger whose features are online for too few entities.

    Raises:
        Unavailable: they are; more may be published.
    """
    if not check.alive or not check.rows:
        raise Unavailable(
            f"of its feature set {feature_set} no entity is online whose features have not "
            "expired; run materialize_features for the newest partition"
        )
    if check.share < least:
        raise Unavailable(
            f"its feature set {feature_set} is online, and not expired, for {check.share:.1%} "
            f"{check.whose}, less than {least:.1%} (release.online_share); run "
            "materialize_features for the newest partition"
        )


async def score_rows(model: Loaded, rows: Sequence[Mapping[str, Any]]) -> None:
    """Have a challenger score rows as they are online.

    Raises:
        Unavailable: it does not; the message has the first reason.
    """
    for row in rows:
        try:
            if model.remote is not None:
                given = {name: row[name] for name in model.remote.features}
                score = (await model.remote.ask(given)).value
            else:
                score = model.scorer.one(row) if model.scorer else math.nan
        except KeyError as error:
            raise Unavailable(
                f"its feature {error} is not online; run materialize_features"
            ) from None
        except (EvergreenError, InvalidFeature) as error:
            raise Unavailable(f"it does not score a row that is online: {error}") from error
        if not 0.0 <= score <= 1.0:  # NaN is neither
            raise Unavailable(f"it answers {score} for a row that is online")
