"""Answer one prediction: features by entity or from the request, the score, the decision, the
log line, the flags.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from include.config.use_case import UseCase
from include.errors import ArtefactError, Unavailable
from include.models.encoding import InvalidFeature
from include.point_in_time.expiry import Calendar, is_expired, is_forgotten
from include.predictions.log import Prediction
from include.serving.http import Refusal
from include.serving.snapshot import Loaded, Served

MAX_TEXT = 1024
_INT_LIMIT = 1 << 63
_MICROSECOND = timedelta(microseconds=1)
_JSON = msgspec.json.Encoder()


class Question(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a prediction request."""

    entity: int | str | msgspec.UnsetType | None = msgspec.UNSET
    features: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class Answer(msgspec.Struct):
    """The body of a prediction's answer; `as_of` and `age_seconds` are of the features, null
    where they came with the request.
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


_decode_question = msgspec.json.Decoder(Question).decode


def parse(body: bytes) -> Question:
    """Read the body of a request.

    Raises: Refusal: 400 for what is no JSON (NaN and endless nesting among it), 422 for JSON of
        another form, with the field.
    """
    try:
        question = _decode_question(body)
    except msgspec.ValidationError as error:
        raise _invalid(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(400, "bad_json", f"the body is no valid JSON: {error}") from None
    except RecursionError:
        raise Refusal(400, "bad_json", "the body is nested too deeply") from None
    if question.entity is msgspec.UNSET and question.features is msgspec.UNSET:
        raise Refusal(422, "invalid", 'give "entity", or a full row of "features"', field="entity")
    return question


def _invalid(message: str) -> Refusal:
    text, _, path = message.partition(" - at `$")
    unknown = text.partition("unknown field `")[2]
    named = unknown.rstrip("`") or path.rstrip("`").lstrip(".").partition("[")[0]
    return Refusal(422, "invalid", text, field=named or "body")


class Horizon:
    """The newest `as_of` that should be online now: features are as old as they lag behind it,
    not behind the clock.
    """

    def __init__(self, use_case: UseCase, clock: Callable[[], int] = time.time_ns) -> None:
        self._calendar, self._clock = Calendar.of(use_case), clock
        self._until, self._as_of = 0, 0

    def now(self) -> tuple[int, int]:
        """Return the time now and the horizon, both in microseconds since 1970."""
        now = self._clock() // 1000
        if not self._until - 1_000_000 <= now < self._until:
            moment = datetime.fromtimestamp(now / 1e6, tz=UTC)
            self._as_of, self._until = (
                round(self._calendar.horizon(moment).timestamp() * 1e6),
                now + 1_000_000,
            )
        return now, min(now, self._as_of)


class Asked(msgspec.Struct):
    """A checked question: whom it is about, and whether the row came with it."""

    entity: int | str | None
    row: dict[str, Any] | None


def check(question: Question, served: Served) -> Asked:
    """Check the types of a question against the use case.

    Raises:
        Refusal: 422 with the field.
    """
    entity = None if question.entity is msgspec.UNSET else question.entity
    row = None if question.features is msgspec.UNSET else question.features
    if row is None or entity is not None:
        _check_entity(served.use_case, entity)
    if row is not None:
        _check_row(row, served.use_case.feature_types)
    return Asked(entity, row)


def _check_entity(use_case: UseCase, entity: int | str | None) -> None:
    if use_case.entity.type == "int64":
        if type(entity) is not int or not -_INT_LIMIT <= entity < _INT_LIMIT:
            raise Refusal(
                422,
                "invalid",
                f"entity must be a whole number ({use_case.entity.key})",
                field="entity",
            )
    elif type(entity) is not str or not 0 < len(entity) <= MAX_TEXT:
        raise Refusal(
            422,
            "invalid",
            f"entity must be text ({use_case.entity.key}), 1 to {MAX_TEXT} characters",
            field="entity",
        )


def _check_row(row: Mapping[str, Any], types: Mapping[str, str]) -> None:
    for name, value in row.items():
        kind = types.get(name)
        field = f"features.{name[:80]}"
        if kind is None:
            raise Refusal(
                422,
                "invalid",
                f"{name[:80]!r} is no feature of this use case; remove it",
                field=field,
            )
        if value is None:
            continue
        given = type(value)
        if kind == "string":
            good = given is str and len(value) <= MAX_TEXT
        elif kind == "bool":
            good = given is bool
        elif kind == "int64":
            good = (given is int and -_INT_LIMIT <= value < _INT_LIMIT) or (
                given is float and value.is_integer()
            )
        else:
            good = given is float or (given is int and -_INT_LIMIT <= value < _INT_LIMIT)
        if not good:
            raise Refusal(422, "invalid", f"{name} must be {_WORDS[kind]} or null", field=field)


_WORDS = {
    "string": f"text of at most {MAX_TEXT} characters",
    "bool": "true or false",
    "int64": "a whole number of 64 bits",
    "float64": "a number",
}


class Features(msgspec.Struct):
    """The row that a model is asked, where it came from and what is to be said about it."""

    row: Mapping[str, Any]
    event_ts: int | None
    age: int | None
    flags: list[str]


def features_of(asked: Asked, served: Served, model: Loaded, horizon: Horizon) -> Features:
    """Return the feature row for a model: what came with the request, and the entity's online
    features for the rest.

    A view that has expired is null, as it is in the training frame.

    Raises: Refusal: 404 unknown entity, 409 stale features (unless the use case's fallback scores
        them), 503 none online.
    """
    given = asked.row or {}
    if asked.row is not None and (
        asked.entity is None or all(name in given for name in _features_read(model))
    ):
        return Features(asked.row, None, None, [])
    use_case, entity = served.use_case, str(asked.entity)
    there = served.online.describe(model.feature_set) if served.online else None
    if served.online is None or there is None:
        raise Refusal(
            503,
            "no_features",
            f"feature set {model.feature_set} of model {model.version} is not online; "
            "run materialize_features for the newest partition, or send the features",
            headers=[(b"retry-after", b"30")],
        )
    found = served.online.get(model.feature_set, entity)
    _, limit = horizon.now()
    ttls = there.ttls
    ages = {} if found is None else there.ages(*found, limit)
    if found is None or is_forgotten(ages, ttls):
        if use_case.fallback.unknown == "refuse":
            raise Refusal(
                404,
                "unknown_entity",
                f"no features are known of {use_case.entity.name} {entity[:80]!r}",
                field="entity",
                flags=["unknown"],
            )
        return Features(
            {**dict.fromkeys(there.columns), **given}, None, None, ["unknown", "fallback"]
        )
    event_ts, values = found
    # Behind the columns stand the views' times.
    row = dict(zip(there.columns, values, strict=False))
    brought = {view.name for view in there.views if all(name in given for name in view.columns)}
    expired = [
        view for view, age in ages.items() if view not in brought and is_expired(age, ttls[view])
    ]
    flags: list[str] = []
    if expired:
        if use_case.fallback.stale == "refuse":
            age, ttl = max((ages[view], ttls[view]) for view in expired)
            raise Refusal(
                409,
                "stale_features",
                f"the features of {use_case.entity.name} {entity[:80]!r} are {age / 86_400e6:.1f} "
                f"days old, more than their ttl of {ttl / 86_400e6:.1f}",
                field="entity",
                flags=["stale"],
            )
        flags = ["stale", "fallback"]
        gone = (
            [there.columns]
            if not there.views
            else [view.columns for view in there.views if view.name in expired]
        )
        row |= dict.fromkeys(name for names in gone for name in names)
    return Features({**row, **given}, event_ts, max(0, limit - event_ts), flags)


def _features_read(model: Loaded) -> list[str]:
    scorer = model.scorer or model.remote
    return scorer.features if scorer else []


def score_sync(model: Loaded, row: Mapping[str, Any]) -> float:
    """Return the score of a model in this process.

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
    if not math.isfinite(score):
        raise Unavailable(f"model {model.version} answers {score}, which is no probability")
    return score


def iso(micros: int | None) -> str | None:
    """Return a time in microseconds since 1970 as ISO 8601 in UTC."""
    if micros is None:
        return None
    return (
        datetime.fromtimestamp(micros // 1_000_000, tz=UTC)
        .replace(microsecond=micros % 1_000_000)
        .isoformat()
    )


def decide(use_case: UseCase, score: float) -> str:
    """Return the decision for a score."""
    return (
        use_case.decision.at_or_above
        if score >= use_case.decision.threshold
        else use_case.decision.below
    )


def record(
    request_id: str,
    asked: Asked,
    served: Served,
    model: Loaded,
    arm: str,
    features: Features,
    score: float,
    started: int,
) -> tuple[Prediction, Answer]:
    """Return the line for the log and the answer; they say the same.

    `started` is in nanoseconds since 1970.
    """
    decision, event = decide(served.use_case, score), iso(features.event_ts)
    now = time.time_ns()
    line = Prediction(
        request_id=request_id,
        at=iso(started // 1000) or "",
        version=model.version,
        digest=model.digest,
        arm=arm,
        entity=None if asked.entity is None else str(asked.entity),
        score=score,
        decision=decision,
        flags=",".join(features.flags),
        feature_set=model.feature_set,
        features_at=event,
        features=msgspec.Raw(_JSON.encode(features.row)),
        latency_us=max(0, now - started) // 1000,
    )
    age = None if features.age is None else features.age / 1e6
    answer = Answer(
        request_id,
        served.use_case.name,
        asked.entity,
        score,
        decision,
        model.version,
        model.digest,
        arm,
        event,
        age,
        features.flags,
    )
    return line, answer
