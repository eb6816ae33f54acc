"""Answer one prediction: find the features of a checked request, score and describe them.

Features come from the online store by entity, from the request, or a part from each.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, cast

import msgspec

from include.deployment.description import Description
from include.errors import ArtefactError, Unavailable
from include.features.online_rows import OnlineSet, Value
from include.models.encoding import InvalidFeature
from include.point_in_time.expiry import is_expired, is_forgotten
from include.predictions.line import DEGRADED
from include.serving.http import Refusal
from include.serving.prediction_request import CheckedRequest
from include.serving.snapshot import Loaded, OnlineRows, Served
from include.serving.tally import STORE_AWAY

log = logging.getLogger(__name__)

_MICROS_A_DAY = 86_400_000_000
_HORIZON_MICROS = 1_000_000  # for so long a horizon is used before the calendar is asked again


class PredictionAnswer(msgspec.Struct):
    """The body of a prediction's answer.

    `as_of` and `age_seconds` are of the features, null where they came with the request.
    """

    request_id: str
    use_case: str
    entity: int | str | None
    score: float
    decision: str
    model_version: int
    model_digest: str
    arm: str
    as_of: str | None
    age_seconds: float | None
    flags: list[str]


class Horizon:
    """The newest `as_of` that should be online now.

    Features are as old as they lag behind it, not behind the clock.
    """

    def __init__(self, use_case: Description, clock: Callable[[], int] = time.time_ns) -> None:
        """Build it; `clock` returns nanoseconds since 1970."""
        self._calendar, self._clock = use_case.calendar, clock
        self._valid_until, self._as_of = 0, 0  # microseconds since 1970

    def now(self) -> tuple[int, int]:
        """Return the time now and the horizon, both in microseconds since 1970."""
        now = self._clock() // 1000
        # The lower bound is for a clock that was set back: the horizon may not lie in its future.
        if not self._valid_until - _HORIZON_MICROS <= now < self._valid_until:
            moment = datetime.fromtimestamp(now / 1e6, tz=UTC)
            self._as_of = round(self._calendar.horizon(moment).timestamp() * 1e6)
            self._valid_until = now + _HORIZON_MICROS
        return now, min(now, self._as_of)


class Features(msgspec.Struct):
    """The row that a model is asked, where it came from, and the flags of the answer.

    `event_ts` is in microseconds since 1970, `age` in microseconds behind the horizon; both are
    None where the row came with the request, or nothing is known of the entity. `content` is the
    row as JSON, where it was read as such; `row` may be empty then. `model_us` is the time that the
    model took, None where it is not known without the way to it; `reason` says why another model
    answers than the one that the request was meant for.
    """

    row: Mapping[str, Any]
    event_ts: int | None
    age: int | None
    flags: list[str]
    content: bytes = b""
    model_us: int | None = None
    reason: bytes = b""


def needs_online(request: CheckedRequest, model: Loaded) -> bool:
    """Tell whether a model needs more than what came with the request."""
    row = request.row
    return row is None or (
        request.entity is not None and not all(name in row for name in _input_features(model))
    )


def find_features(
    request: CheckedRequest,
    served: Served,
    model: Loaded,
    horizon: Horizon,
    ahead: OnlineRows | None = None,
) -> Features:
    """Return the feature row for a model.

    `ahead` holds what was read of the online store for this request, where that store is in another
    process. What came with the request goes before the entity's online features. A view that has
    expired is null, as it is in the training frame.

    Raises:
        Refusal: 404 unknown entity, 409 stale features, 503 the store is away (unless the use
            case's fallback scores them), 503 none online.
    """
    if request.row is not None and not needs_online(request, model):
        return Features(request.row, None, None, [])
    sent = request.row or {}
    online = ahead or cast(OnlineRows | None, served.online)
    online_set: OnlineSet | None = None
    stored: tuple[int, list[Value]] | None = None
    ages: dict[str, int] = {}
    _, limit = horizon.now()
    try:
        if online is not None and (online_set := online.describe(model.feature_set)) is not None:
            stored = online.get(model.feature_set, str(request.entity))
            if stored is not None:
                ages = online_set.ages(*stored, limit)
    except Unavailable as error:
        return _store_away(request, served.use_case, model, error)
    if online_set is None:
        raise Refusal(
            503,
            "no_features",
            f"feature set {model.feature_set} of model {model.version} is not online; "
            "run materialize_features for the newest partition, or send the features",
            headers=[(b"retry-after", b"30")],
        )
    # Without any age, of an entity without a row, this is true as well.
    if stored is None or is_forgotten(ages, online_set.ttls):
        return _unknown_entity(request, served.use_case, online_set)
    event_ts, values = stored
    # The values of the columns stand first; the times of the views, which follow, are cut off.
    row = dict(zip(online_set.columns, values, strict=False))
    sent_views = {
        view.name for view in online_set.views if all(name in sent for name in view.columns)
    }
    expired = [
        view
        for view, age in ages.items()
        if view not in sent_views and is_expired(age, online_set.ttls[view])
    ]
    flags: list[str] = []
    if expired:
        if served.use_case.fallback.stale == "refuse":
            raise _stale(request, served.use_case, expired, ages, online_set)
        flags = ["stale", "fallback"]
        row |= dict.fromkeys(_columns_of(online_set, expired))
    return Features({**row, **sent}, event_ts, max(0, limit - event_ts), flags)


def _store_away(
    request: CheckedRequest, use_case: Description, model: Loaded, error: Unavailable
) -> Features:
    """Return a row of nulls and of what was sent, where the use case scores without its store."""
    # Where the store is, and why it does not answer, is nothing for callers.
    log.warning("%s: %s", use_case.name, error)
    if use_case.fallback.store == "refuse":
        raise Refusal(
            503,
            STORE_AWAY,
            "the online features cannot be read now; send the features, or ask again (the node's "
            "log says why)",
            headers=[(b"retry-after", b"2")],
            flags=[DEGRADED],
        )
    row = {**dict.fromkeys(_input_features(model)), **(request.row or {})}
    return Features(row, None, None, [DEGRADED, "fallback"])


def _unknown_entity(
    request: CheckedRequest, use_case: Description, online_set: OnlineSet
) -> Features:
    """Return a row of nulls and of what was sent, where the use case scores unknown entities."""
    if use_case.fallback.unknown == "refuse":
        raise Refusal(
            404,
            "unknown_entity",
            f"no features are known of {use_case.entity.name} {str(request.entity)[:80]!r}",
            field="entity",
            flags=["unknown"],
        )
    row = {**dict.fromkeys(online_set.columns), **(request.row or {})}
    return Features(row, None, None, ["unknown", "fallback"])


def _stale(
    request: CheckedRequest,
    use_case: Description,
    expired: Collection[str],
    ages: Mapping[str, int],
    online_set: OnlineSet,
) -> Refusal:
    """Return the refusal of stale features; it names the oldest view's age."""
    age, ttl = max((ages[view], online_set.ttls[view]) for view in expired)
    return Refusal(
        409,
        "stale_features",
        f"the features of {use_case.entity.name} {str(request.entity)[:80]!r} are "
        f"{age / _MICROS_A_DAY:.1f} days old, more than their ttl of {ttl / _MICROS_A_DAY:.1f}",
        field="entity",
        flags=["stale"],
    )


def _columns_of(online_set: OnlineSet, views: Collection[str]) -> list[str]:
    """Return the columns of views; rows that an older version wrote know no views: all columns."""
    if not online_set.views:
        return list(online_set.columns)
    return [name for view in online_set.views if view.name in views for name in view.columns]


def _input_features(model: Loaded) -> list[str]:
    scorer = model.scorer or model.remote
    return scorer.features if scorer else []


def score_in_process(model: Loaded, row: Mapping[str, Any]) -> float:
    """Return the probability that a model in this process gives.

    Raises:
        Refusal: 422 with the feature that the row lacks.
        Unavailable: the model does not answer a number.
    """
    if model.scorer is None:
        raise Unavailable(f"model {model.version} is not in this process")
    try:
        score = model.scorer.one(row)
    except InvalidFeature as error:
        raise Refusal(422, "invalid", str(error), field=f"features.{error.feature}") from None
    except ArtefactError as error:
        raise Unavailable(f"model {model.version} gives no answer: {error}") from error
    check_score(model, score)
    return score


class InvalidScore(Unavailable):
    """A model answers a number that is no probability."""


def check_score(model: Loaded, score: float) -> None:
    """Refuse a score that is no probability.

    Raises:
        InvalidScore: it is not.
    """
    if not 0.0 <= score <= 1.0:  # NaN is neither
        raise InvalidScore(f"model {model.version} answers {score}, which is no probability")


@lru_cache(maxsize=4096)
def _whole_second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%S")


def iso(micros: int | None) -> str | None:
    """Return a time in microseconds since 1970 as ISO 8601 in UTC."""
    if micros is None:
        return None
    # A float holds no microseconds of today exactly; and most calls are of the same second.
    seconds, rest = divmod(micros, 1_000_000)
    fraction = f".{rest:06d}" if rest else ""
    return f"{_whole_second(seconds)}{fraction}+00:00"


def decide(use_case: Description, score: float) -> str:
    """Return the decision for a score."""
    decision = use_case.decision
    return decision.at_or_above if score >= decision.threshold else decision.below


def describe_answer(
    request_id: str,
    entity: int | str | None,
    served: Served,
    model: Loaded,
    arm: str,
    features: Features,
    score: float,
    decision: str,
) -> PredictionAnswer:
    """Return the answer; `arm` is the role of the model that answers."""
    # By position, in the order of the fields: names cost as much again as all the rest.
    return PredictionAnswer(
        request_id,
        served.use_case.name,
        entity,
        score,
        decision,
        model.version,
        model.digest,
        arm,
        iso(features.event_ts),
        None if features.age is None else features.age / 1e6,
        features.flags,
    )
