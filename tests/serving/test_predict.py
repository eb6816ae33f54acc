"""One prediction without a node: what a request may say, and what an answer says."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from include.deployment.description import Description
from include.errors import ArtefactError, Unavailable
from include.models.encoding import InvalidFeature
from include.serving import predict
from include.serving.http import Refusal
from include.serving.predict import Features, Horizon
from include.serving.prediction_request import CheckedRequest, check_request, parse_request
from include.serving.snapshot import Loaded, Online, Served
from tests.builders.application import Client
from tests.builders.serving import FEATURE_SET, NAME, NOW, ROW, Desk


class Scorer:
    """A model that answers what it is told to."""

    features = tuple(ROW)

    def __init__(self, answer: float | Exception) -> None:
        self._answer = answer

    def one(self, row: Any) -> float:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def loaded(answer: float | Exception = 0.5) -> Loaded:
    return Loaded(3, "sha256:3", FEATURE_SET, "2026-03-01", scorer=Scorer(answer))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def use_case(asked_desk: Desk) -> Description:
    return Client(asked_desk).use_case


def check(use_case: Description, body: object) -> CheckedRequest:
    request = parse_request(json.dumps(body).encode())
    return check_request(request, Served(use_case))


def refusal_of(use_case: Description, body: object) -> Refusal:
    with pytest.raises(Refusal) as caught:
        check(use_case, body)
    return caught.value


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe{}",
        b'{"entity": NaN}',
        b'{"features": {"income": Infinity}}',
        b'{"entity": 1} x',
        b'{"features":{"income":' + b"[" * 10_000 + b"]" * 10_000 + b"}}",
    ],
)
def test_what_is_no_json_is_told_apart(content: bytes) -> None:
    with pytest.raises(Refusal) as caught:
        parse_request(content)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], "body"),
        ({}, "entity"),
        ({"entity": [1]}, "entity"),
        ({"entity": 1, "more": 1}, "more"),
        ({"features": [1]}, "features"),
        ({"entity": "1"}, "entity"),
        ({"entity": True}, "entity"),
        ({"entity": 1 << 63}, "entity"),
        ({"entity": None}, "entity"),
        ({"features": {"age": 1}}, "features.age"),
        ({"features": {"jobs": True}}, "features.jobs"),
        ({"features": {"jobs": 1.5}}, "features.jobs"),
        ({"features": {"jobs": 1e300}}, "features.jobs"),
        ({"features": {"jobs": float(1 << 63)}}, "features.jobs"),
        ({"features": {"jobs": "two"}}, "features.jobs"),
        ({"features": {"income": True}}, "features.income"),
        ({"features": {"income": 10**400}}, "features.income"),
        ({"features": {"region": "x" * 1025}}, "features.region"),
        ({"features": {"region": {"a": 1}}}, "features.region"),
        ({"features": {"new": 1}}, "features.new"),
    ],
)
def test_a_wrong_field_is_named(use_case: Description, body: object, field: str) -> None:
    refusal = refusal_of(use_case, body)
    assert (refusal.status, refusal.field) == (422, field)


@pytest.mark.parametrize(
    "features",
    [
        {"jobs": -(1 << 63)},
        {"jobs": 2.0},
        {"income": 3},
        {"income": -1e300},
        {"region": "x" * 1024},
        {"new": False},
        dict.fromkeys(ROW),
        {},
    ],
)
def test_a_row_of_the_right_types_is_taken_as_it_is(
    use_case: Description, features: dict[str, Any]
) -> None:
    assert check(use_case, {"features": features}) == CheckedRequest(None, features)


def test_an_entity_whose_key_is_text_is_checked_as_text(use_case: Description) -> None:
    entity = replace(use_case.entity, type="string")
    named = replace(use_case, entity=entity)
    assert check(named, {"entity": "A-1"}).entity == "A-1"
    assert check(named, {"entity": " A-1\u00a0"}).entity == "A-1", "as rows of it are read"
    for wrong in (1, "", " \t", "x" * 1025, None):
        assert refusal_of(named, {"entity": wrong}).field == "entity"


def test_the_horizon_moves_once_a_second_and_never_ahead_of_the_clock(
    use_case: Description,
) -> None:
    moment = datetime(2026, 2, 10, 12, tzinfo=UTC)
    clock = [round(moment.timestamp()) * 10**9]
    horizon = Horizon(use_case, clock=lambda: clock[0])
    midnight = round(datetime(2026, 2, 10, tzinfo=UTC).timestamp()) * 10**6
    expected = midnight + round(use_case.cut_off * 1e6)
    assert horizon.now() == (clock[0] // 1000, expected)
    for _ in range(3):  # the clock is set back by ten days
        clock[0] -= 10 * 86_400 * 10**9
        now, limit = horizon.now()
        assert limit <= now


@pytest.fixture(scope="module")
def online(asked_desk: Desk) -> Online:
    asked_desk.publish({1: (NOW, ROW), 2: (NOW - timedelta(days=60), ROW)})
    return Online(asked_desk.settings.home / "online" / f"{NAME}.db")


def find(
    use_case: Description, online: Online | None, request: CheckedRequest, **fallback: str
) -> Features:
    changed = replace(use_case.fallback, **fallback)
    case = replace(use_case, fallback=changed)
    at = NOW + timedelta(hours=12)
    horizon = Horizon(case, clock=lambda: round(at.timestamp()) * 10**9)
    return predict.find_features(request, Served(case, online), loaded(), horizon)


def test_features_are_those_of_the_entity_with_their_age(
    use_case: Description, online: Online
) -> None:
    features = find(use_case, online, CheckedRequest(1, None))
    assert (features.row, features.flags) == (ROW, [])
    assert features.event_ts == round(NOW.timestamp() * 1e6)
    assert features.age == round(use_case.cut_off * 1e6)


def test_what_is_sent_goes_before_what_is_stored(use_case: Description, online: Online) -> None:
    part = find(use_case, online, CheckedRequest(1, {"income": 5.0}))
    assert part.row == {**ROW, "income": 5.0}
    whole = find(use_case, None, CheckedRequest(1, dict(ROW)))
    assert (whole.row, whole.event_ts, whole.age) == (ROW, None, None)


def test_without_an_online_store_an_entity_cannot_be_asked(use_case: Description) -> None:
    with pytest.raises(Refusal, match="not online") as caught:
        find(use_case, None, CheckedRequest(1, None))
    assert caught.value.status == 503


@pytest.mark.parametrize(("entity", "status"), [(99, 404), (2, 409)])
def test_unknown_and_stale_entities_are_refused_or_scored(
    use_case: Description, online: Online, entity: int, status: int
) -> None:
    with pytest.raises(Refusal) as caught:
        find(use_case, online, CheckedRequest(entity, None))
    assert (caught.value.status, caught.value.field) == (status, "entity")
    features = find(
        use_case, online, CheckedRequest(entity, {"jobs": 7}), unknown="score", stale="score"
    )
    assert features.row == {**dict.fromkeys(ROW), "jobs": 7}
    assert features.flags[-1] == "fallback"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (InvalidFeature("income", "income is missing; send null"), Refusal),
        (ArtefactError("damaged"), Unavailable),
        (math.nan, Unavailable),
        (math.inf, Unavailable),
    ],
)
def test_a_model_answers_a_number_or_says_who_is_at_fault(
    answer: float | Exception, error: type[Exception]
) -> None:
    assert predict.score_in_process(loaded(0.25), ROW) == 0.25
    with pytest.raises(error):
        predict.score_in_process(loaded(answer), ROW)


@pytest.mark.parametrize(
    ("micros", "text"),
    [
        (None, None),
        (0, "1970-01-01T00:00:00+00:00"),
        (1_772_323_199_999_999, "2026-02-28T23:59:59.999999+00:00"),
    ],
)
def test_times_keep_their_microseconds(micros: int | None, text: str | None) -> None:
    assert predict.iso(micros) == text


@pytest.mark.parametrize(("score", "decision"), [(0.5, "accept"), (0.499999, "refer")])
def test_the_threshold_itself_is_above(use_case: Description, score: float, decision: str) -> None:
    assert predict.decide(use_case, score) == decision


def test_an_answer_says_where_its_features_are_from(use_case: Description) -> None:
    features = Features(dict(ROW), round(NOW.timestamp() * 1e6), 1_500_000, ["stale", "fallback"])
    answer = predict.describe_answer(
        "r-1",
        1,
        Served(use_case),
        loaded(),
        "champion",
        features,
        0.75,
        "accept",
    )
    assert (answer.request_id, answer.score, answer.decision) == ("r-1", 0.75, "accept")
    assert (answer.model_version, answer.model_digest, answer.arm) == (3, "sha256:3", "champion")
    assert (answer.entity, answer.flags) == (1, ["stale", "fallback"])
    assert (answer.as_of, answer.age_seconds) == (NOW.isoformat(), 1.5)
