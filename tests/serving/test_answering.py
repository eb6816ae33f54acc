"""Which arm answers, and that a challenger's failure is the caller's no more than a flag."""

from __future__ import annotations

import asyncio
import json
import math
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from include.errors import Unavailable
from include.predictions.log import closed_segments
from include.predictions.reading import read
from include.predictions.window_counts import ERRORS, REQUESTS
from include.serving.assignment import WHOLE, Assignment
from include.serving.batch import TURN
from include.serving.child_link import Late
from include.serving.http import Refusal
from include.serving.snapshot import Loaded, Online, RemoteScore
from tests.builders.application import Client
from tests.builders.challenger import HANGS, KEY, RELEASE, STEP, Challenger, served_release
from tests.builders.counted import by_arms
from tests.builders.serving import NAME, NOW, ROW, Desk

WIDE = {**ROW, "extra": 3.5}  # what the challenger alone reads


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    made = Desk(tmp_path_factory.mktemp("answering"))
    made.publish(dict.fromkeys(range(200), (NOW, ROW)))
    return made


@pytest.fixture
def client(desk: Desk) -> Iterator[Client]:
    made = Client(desk)
    made.online = Online(desk.settings.home / "online" / f"{NAME}.db")  # type: ignore[attr-defined]
    yield made
    made.online.close()  # type: ignore[attr-defined]
    made.app.log.close()
    for segment in closed_segments(desk.settings.home, NAME):
        segment.path.unlink()


def serve(
    client: Client,
    answer: Callable[[Mapping[str, object]], float | Exception] = lambda row: 0.125,
    share: int = WHOLE,
    features: list[str] | None = None,
    **changes: Any,
) -> Challenger:
    remote = Challenger(answer)
    remote.features = features or remote.features
    types = {"extra": "float64"}
    challenger = Loaded(
        2, "sha256:two", changes.pop("set", "a1b2c3d4e5"), "2026-03-02", remote=remote, types=types
    )
    row_types = {**client.use_case.feature_types, "extra": "float64"}
    client.serve(
        1,
        challenger=challenger,
        release=served_release(share),
        online=client.online,  # type: ignore[attr-defined]
        row_types=row_types,
        **changes,
    )
    return remote


def line(client: Client) -> dict[str, Any]:
    """Return the last line on record."""
    client.app.log.close()
    found: list[dict[str, Any]] = read(closed_segments(client.desk.settings.home, NAME)).to_pylist()
    return found[-1]


def counts(client: Client) -> dict[tuple[str, str], dict[str, Any]]:
    """Return what was counted, by both arms."""
    found = by_arms(client.app.evidence)
    steps = {(key.release, key.step) for key in client.app.evidence.windows}
    assert steps <= {(RELEASE, STEP)}
    return {
        arms: {
            "requests": one.column(REQUESTS),
            "errors": one.column(ERRORS),
            "kinds": one.error_kinds,
            "lacks": one.lacks,
        }
        for arms, one in found.items()
    }


def test_whoever_is_assigned_is_answered_by_the_challenger_and_all_of_it_is_on_record(
    client: Client,
) -> None:
    serve(client, share=2500)
    places = Assignment(KEY)
    arms = set()
    for number in range(40):
        meant = "challenger" if places.place(number) < 2500 else "champion"
        answer = client.predict(entity=number, features={"income": 1.0}).json()
        assert answer["arm"] == meant
        assert answer["model_version"] == (2 if meant == "challenger" else 1)
        assert answer["flags"] == []
        arms.add(meant)
        last = line(client)
        assert (last["release"], last["step"]) == (RELEASE, STEP)
        assert (last["assigned"], last["arm"], last["outcome"]) == (meant, meant, "answered")
    assert arms == {"champion", "challenger"}
    found = counts(client)
    assert set(found) == {("champion", "champion"), ("challenger", "challenger")}
    assert sum(one["requests"] for one in found.values()) == 40
    assert all(one["errors"] == 0 for one in found.values())
    text = client.ask("GET", "/metrics").text
    given = found["challenger", "challenger"]["requests"]
    labels = f'answering="challenger",assigned="challenger",use_case="{NAME}"'
    assert f"evergreen_release_answers_total{{{labels}}} {float(given)}" in text
    assert f'evergreen_release_share{{use_case="{NAME}"}} 0.25' in text


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (Unavailable("its process has ended"), "model_failed"),
        (Late("no answer in 100 ms"), "model_late"),
        (HANGS, "model_late"),
        (math.nan, "invalid_score"),
        (math.inf, "invalid_score"),
        (1.5, "invalid_score"),
        (-0.1, "invalid_score"),
        (Refusal(503, "no_features", "its feature set is not online"), "no_features"),
    ],
)
def test_where_the_challenger_fails_the_champion_answers(
    client: Client, failure: float | Exception, reason: str
) -> None:
    serve(client, lambda row: failure)
    answer = client.predict(features=ROW)
    assert answer.status_code == 200
    told = answer.json()
    assert (told["arm"], told["model_version"], told["flags"]) == ("champion", 1, ["fallback"])
    last = line(client)
    assert (last["assigned"], last["arm"]) == ("challenger", "champion")
    assert (last["reason"], last["flags"], last["version"]) == (reason, "fallback", 1)
    assert counts(client) == {
        ("challenger", "champion"): {
            "requests": 1,
            "errors": 1,
            "kinds": {reason: 1},
            "lacks": {},
        }
    }


def test_what_nobody_expects_of_a_challenger_is_told_and_meets_no_caller(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(row: Mapping[str, object]) -> float:
        raise RuntimeError("a fault of the code")

    serve(client, broken)
    assert client.predict(features=ROW).json()["arm"] == "champion"
    assert counts(client)["challenger", "champion"]["kinds"] == {"model_failed": 1}
    [told] = [one for one in caplog.records if "nobody expected" in one.message]
    assert told.exc_info is not None


def test_a_challenger_that_is_dead_is_its_own_failure(client: Client) -> None:
    serve(client)
    served = client.app.table.served[NAME]
    client.serve(1, release=served.release, challenger=None)
    assert client.predict(features=ROW).json()["flags"] == ["fallback"]
    assert counts(client)["challenger", "champion"]["kinds"] == {"model_failed": 1}


def test_a_row_that_lacks_a_feature_of_the_challenger_alone_is_the_champions(
    client: Client,
) -> None:
    remote = serve(client, features=[*ROW, "extra"])
    told = client.predict(features=ROW).json()
    assert (told["arm"], told["flags"]) == ("champion", ["fallback"])
    assert line(client)["reason"] == "row_lacks_feature"
    assert counts(client)["challenger", "champion"] == {
        "requests": 1,
        "errors": 0,
        "kinds": {"row_lacks_feature": 1},
        "lacks": {"extra": 1},
    }
    assert client.predict(features=WIDE).json()["arm"] == "challenger"
    assert remote.asked[-1] == WIDE


def test_a_row_that_lacks_a_feature_of_the_champion_is_refused_whoever_it_is_meant_for(
    client: Client,
) -> None:
    serve(client)
    lacking = {name: value for name, value in ROW.items() if name != "income"}
    answer = client.predict(features=lacking)
    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == "features.income"
    assert counts(client) == {}, "the caller's fault is nobody's error"


def test_where_no_model_answers_both_arms_failures_are_counted_once(client: Client) -> None:
    serve(client, lambda row: Unavailable("dead"))
    served = client.app.table.served[NAME]
    sick = Loaded(1, "sha256:one", "a1b2c3d4e5", "2026-03-01", remote=Challenger(lambda row: 2.0))
    client.serve(1, champion=sick, challenger=served.challenger, release=served.release)
    assert client.predict(features=ROW).status_code == 503
    assert counts(client) == {
        ("challenger", "none"): {
            "requests": 1,
            "errors": 1,
            "kinds": {"model_failed": 1},
            "lacks": {},
        }
    }
    assert (line(client)["assigned"], line(client)["outcome"]) == ("challenger", "failed")


INVALID, DEAD = 2.0, Unavailable("its process has ended")
OFFLINE = Refusal(503, "no_features", "its feature set is not online")


@pytest.mark.parametrize("is_batch", [False, True])
@pytest.mark.parametrize(
    ("champions", "befores", "answering", "kind"),
    [
        (INVALID, INVALID, "neither", "invalid_score"),
        (INVALID, DEAD, "neither", "invalid_score"),
        (OFFLINE, OFFLINE, "neither", "no_features"),
        (DEAD, 0.25, "fallback", "model_failed"),
        (INVALID, Refusal(422, "invalid", "wrong", field="features.x"), "none", "invalid_score"),
        (DEAD, Refusal(404, "unknown_entity", "it does not know it"), "none", "model_failed"),
        (OFFLINE, Refusal(409, "stale_features", "too old"), "none", "no_features"),
        (INVALID, Refusal(504, "deadline", "too late"), "none", "invalid_score"),
        (INVALID, Refusal(503, "store_away", "away"), "none", "invalid_score"),
    ],
)
def test_what_a_champion_fails_at_is_asked_of_the_model_before_it(
    client: Client,
    champions: float | Exception,
    befores: float | Exception,
    answering: str,
    kind: str,
    is_batch: bool,
) -> None:
    def model(version: int, answer: float | Exception) -> Loaded:
        remote = Challenger(lambda row: answer)
        return Loaded(version, f"sha256:{version}", "a1b2c3d4e5", "2026-03-01", remote=remote)

    client.serve(
        2, champion=model(2, champions), previous=model(1, befores), release=served_release(0)
    )
    if is_batch:
        batch = client.ask("POST", f"/v1/{NAME}/batch", json={"rows": [{"features": ROW}]})
        assert batch.is_success
        error = batch.json()["results"][0].get("error")
    else:
        answer = client.predict(features=ROW)
        error = answer.json().get("error")
        assert answer.is_success or answer.status_code >= 500, "it is no fault of who asked"
    codes = {"unavailable", "no_features", "deadline", "store_away"}
    assert error is None if answering == "fallback" else error["code"] in codes
    assert counts(client) == {
        ("champion", answering): {"requests": 1, "errors": 1, "kinds": {kind: 1}, "lacks": {}}
    }
    if answering in ("neither", "none"):
        last = line(client)
        arm = "fallback" if answering == "neither" else None
        assert (last["outcome"], last["arm"], last["reason"]) == ("failed", arm, kind)


@pytest.mark.parametrize("has_own_set", [False, True])
def test_features_that_are_not_online_are_lacked_by_all_models_of_their_set(
    client: Client, has_own_set: bool
) -> None:
    real = client.serve(1)
    champion = replace(real, version=2, digest="sha256:2", feature_set="nowhere")
    before = real if has_own_set else replace(real, feature_set="nowhere")
    online = client.online  # type: ignore[attr-defined]
    client.serve(2, champion=champion, previous=before, release=served_release(0), online=online)
    answer = client.predict(entity=1)
    assert answer.status_code == (200 if has_own_set else 503)
    answering = "fallback" if has_own_set else "neither"
    assert counts(client)["champion", answering]["kinds"] == {"no_features": 1}


@pytest.mark.parametrize("asks_by_entity", [False, True])
def test_what_the_model_before_lacks_is_asked_of_nobody(
    client: Client, asks_by_entity: bool
) -> None:
    """What the champion fails at is its failure, and is counted, whatever the one before reads."""
    real = client.serve(1)
    sick = Loaded(2, "sha256:2", "a1b2c3d4e5", "2026-03-01", remote=Challenger(lambda row: INVALID))
    before = Loaded(1, "sha256:1", "elsewhere", "2026-03-01", scorer=real.scorer)
    wider = Challenger(lambda row: 0.25)
    wider.features = [*ROW, "extra"]
    if not asks_by_entity:
        before = replace(before, feature_set="a1b2c3d4e5", scorer=None, remote=wider)
    online = client.online  # type: ignore[attr-defined]
    client.serve(2, champion=sick, previous=before, release=served_release(0), online=online)
    answer = client.predict(entity=1) if asks_by_entity else client.predict(features=ROW)
    assert answer.status_code == 503
    assert counts(client)["champion", "neither" if asks_by_entity else "none"]["kinds"] == {
        "invalid_score": 1
    }


def damage(client: Client, feature_set: str, values: object) -> None:
    """Write over what is online of entity 1, and describe its set if nobody has."""
    with sqlite3.connect(client.desk.settings.home / "online" / f"{NAME}.db") as database:
        database.execute(
            "INSERT OR IGNORE INTO sets SELECT ?, columns, partition, ttl, written, inputs, digest "
            "FROM sets LIMIT 1",
            (feature_set,),
        )
        moment = round(NOW.timestamp() * 1e6)
        database.execute(
            "INSERT OR REPLACE INTO rows VALUES (?, '1', ?, ?)", (feature_set, moment, values)
        )
    client.online.refresh()  # type: ignore[attr-defined]


DAMAGED = [b"\xc1no MessagePack", b"", b"\x81\xa1a\x01", b"\x91\x01", "text"]


@pytest.mark.parametrize("values", DAMAGED)
def test_a_row_of_the_challengers_that_cannot_be_read_is_no_callers_fault(
    client: Client, values: object
) -> None:
    damage(client, "ffffffffff", values)
    serve(client, set="ffffffffff")
    told = client.predict(entity=1).json()
    assert (told["arm"], told["flags"]) == ("champion", ["fallback"])
    assert counts(client)["challenger", "champion"] == {
        "requests": 1,
        "errors": 0,
        "kinds": {"store_away": 1},
        "lacks": {},
    }


@pytest.mark.parametrize("values", DAMAGED)
def test_a_row_of_the_champions_that_cannot_be_read_is_refused_alone(
    client: Client, values: object
) -> None:
    damage(client, "eeeeeeeeee", values)
    champion = replace(client.serve(1), feature_set="eeeeeeeeee")
    online = client.online  # type: ignore[attr-defined]
    client.serve(2, champion=champion, release=served_release(0), online=online)
    answer = client.predict(entity=1)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_away")
    rows = [{"features": ROW}, {"entity": 1}, {"features": ROW}]
    batch = client.ask("POST", f"/v1/{NAME}/batch", json={"rows": rows})
    assert batch.status_code == 200
    codes = [one.get("error", {}).get("code") for one in batch.json()["results"]]
    assert codes == [None, "store_away", None]
    assert counts(client)["champion", "none"]["errors"] == 0


def test_of_a_model_that_is_not_gone_back_to_nothing_is_said(client: Client) -> None:
    sick = Challenger(lambda row: INVALID)
    models = [
        Loaded(version, f"sha256:{version}", "a1b2c3d4e5", "2026-03-01", remote=sick)
        for version in (1, 2)
    ]
    client.serve(2, champion=models[1], standby=models[0], release=served_release(0))
    assert client.predict(features=ROW).status_code == 503
    client.serve(2, champion=None, previous=models[0], release=served_release(0))
    assert client.predict(features=ROW).status_code == 503
    assert set(counts(client)) == {("champion", "none")}


def test_each_row_of_a_batch_is_assigned_by_its_own_entity(client: Client) -> None:
    serve(client, share=5000)
    places = Assignment(KEY)
    rows: list[dict[str, Any]] = [{"entity": number} for number in range(30)]
    rows += [{"features": {**ROW, "income": float(number)}} for number in range(30)]
    rows += [{"features": {"income": 1.0}}]
    answer = client.ask("POST", f"/v1/{NAME}/batch", json={"rows": rows}).json()
    arms = [one.get("arm") for one in answer["results"]]
    assert arms[:30] == [
        "challenger" if places.place(number) < 5000 else "champion" for number in range(30)
    ]
    assert set(arms[30:60]) == {"champion", "challenger"}
    assert arms[60] is None
    found = counts(client)
    assert sum(one["requests"] for one in found.values()) == 60
    again = client.ask("POST", f"/v1/{NAME}/batch", json={"rows": rows}).json()
    assert [one.get("arm") for one in again["results"]] == arms, "a row stays with its arm"


@pytest.mark.parametrize("count", [200, 800])
def test_a_challenger_that_hangs_uses_up_no_batch(client: Client, count: int) -> None:
    remote = serve(client, lambda row: HANGS)
    rows = [{"entity": number % 200} for number in range(count)]
    results = client.ask("POST", f"/v1/{NAME}/batch", json={"rows": rows}).json()["results"]
    assert [one["entity"] for one in results] == [row["entity"] for row in rows]
    assert {one["arm"] for one in results} == {"champion"}
    assert {tuple(one["flags"]) for one in results} == {("fallback",)}
    found, asked = counts(client)["challenger", "champion"], len(remote.asked)
    # It is late with what it was asked; that the batch is late then is no error of a row more.
    assert TURN <= asked < count
    assert found["kinds"] == {"model_late": asked, "batch_late": count - asked}
    assert (found["requests"], found["errors"]) == (count, asked)


class Tired(Challenger):
    """A champion whose first answer takes some time; what is behind the first turn it answers so.

    Rows are known by their income, which is their place in the batch.
    """

    def __init__(self, seconds: float, then: float | Exception) -> None:
        super().__init__(lambda row: 0.125 if cast(float, row["income"]) < TURN else then)
        self._first = seconds

    async def ask(self, row: Mapping[str, object], **how: Any) -> RemoteScore:
        """Answer a question."""
        seconds, self._first = self._first, 0.0
        await asyncio.sleep(seconds)
        return await super().ask(row, **how)


@pytest.mark.parametrize("then", [0.125, Unavailable("its process has ended")])
def test_rows_that_a_late_batch_does_not_ask_the_challenger_are_nobodys_error(
    client: Client, then: float | Exception
) -> None:
    """Late is the batch by its champion, and could be by its size: of equal models neither is."""
    remote, seconds = serve(client, share=5000), 2.5
    served = client.app.table.served[NAME]
    champion = Loaded(1, "sha256:one", "a1b2c3d4e5", "2026-03-01", remote=Tired(1.5, then))
    client.serve(1, champion=champion, challenger=served.challenger, release=served.release)
    client.app._seconds = client.app._answering._seconds = seconds
    rows = [{"features": {**ROW, "income": float(number)}} for number in range(2 * TURN)]
    results = client.ask("POST", f"/v1/{NAME}/batch", json={"rows": rows}).json()["results"]
    assert {"champion", "challenger"} <= {one.get("arm") for one in results[:TURN]}
    answering = "champion" if then == 0.125 else "none"
    assert {one.get("arm", "none") for one in results[TURN:]} == {answering}
    found = counts(client)
    unasked = found["challenger", answering]
    assert unasked["kinds"] == {"batch_late": unasked["requests"]}
    assert unasked["requests"] + found["challenger", "challenger"]["requests"] > TURN // 2
    assert len(remote.asked) == found["challenger", "challenger"]["requests"]
    assert unasked["errors"] == found["challenger", "challenger"]["errors"] == 0
    client.app.log.close()
    lines = read(closed_segments(client.desk.settings.home, NAME)).to_pylist()
    late = [one for one in lines if one["reason"] == "batch_late"]
    assert len(late) == unasked["requests"], "as they are counted again after a kill"
    assert {(one["assigned"], one["flags"]) for one in late} == {
        ("challenger", "fallback" if answering == "champion" else "")
    }
    text = client.ask("GET", "/metrics").text
    assert 'event="challenger_failed"' not in text


@pytest.mark.parametrize("seconds", [0.2, 30.0])
def test_a_batch_that_is_too_large_is_not_its_champions_error(
    client: Client, seconds: float
) -> None:
    """Of what is asked with all of its time, one can tell: such a champion has its errors."""
    late = Late("no answer in 500 ms") if seconds > 1 else HANGS
    champion = Loaded(1, "sha256:1", "a1b2c3d4e5", "2026-03-01", remote=Challenger(lambda _: late))
    client.serve(1, champion=champion, release=served_release(0))
    client.app._seconds = client.app._answering._seconds = seconds
    rows = [{"features": ROW}] * 5
    results = client.ask("POST", f"/v1/{NAME}/batch", json={"rows": rows}).json()["results"]
    kind, code, errors = (
        ("model_late", "unavailable", 5) if seconds > 1 else ("batch_late", "deadline", 0)
    )
    assert {one["error"]["code"] for one in results} == {code}
    found = counts(client)["champion", "none"]
    assert (found["requests"], found["errors"], found["kinds"]) == (5, errors, {kind: 5})
    assert line(client)["reason"] == kind


def test_a_row_alone_has_the_same_arm_by_every_way(client: Client) -> None:
    serve(client, share=5000)
    arms = set()
    for number in range(20):
        body = json.dumps({"features": {**ROW, "income": number + 0.5}}).encode()
        headers = {"content-type": "application/json"}
        one = client.ask("POST", f"/v1/{NAME}/predict", content=body, headers=headers).json()
        batch = b'{"rows":[' + body + b"]}"
        many = client.ask("POST", f"/v1/{NAME}/batch", content=batch, headers=headers).json()
        assert many["results"][0]["arm"] == one["arm"]
        arms.add(one["arm"])
    assert arms == {"champion", "challenger"}


def test_headers_tell_who_answered_for_whom_to_whoever_asks(client: Client) -> None:
    serve(client, lambda row: math.nan)
    plain = client.predict(features=ROW)
    assert not any(name.startswith("x-evergreen") for name in plain.headers)
    told = client.ask(
        "POST",
        f"/v1/{NAME}/predict",
        json={"features": ROW},
        headers={"x-evergreen-explain": "1"},
    ).headers
    assert (told["x-evergreen-assigned"], told["x-evergreen-arm"]) == ("challenger", "champion")
    assert told["x-evergreen-release"] == f"{RELEASE}/{STEP}"


def test_without_a_share_nobody_is_assigned_to_a_challenger(client: Client) -> None:
    remote = serve(client, share=0)
    assert client.predict(entity=1).json()["arm"] == "champion"
    assert remote.asked == []
    assert counts(client) == {
        ("champion", "champion"): {"requests": 1, "errors": 0, "kinds": {}, "lacks": {}}
    }


def test_the_health_page_tells_the_release_and_never_its_secret(client: Client) -> None:
    serve(client, share=0)
    silent = served_release(0, is_active=False, why="this node has heard no beat")
    client.serve(1, release=silent)
    text = client.ask("GET", "/health").text
    assert json.loads(text)["use_cases"][NAME]["release"] == {
        "id": RELEASE,
        "state": "running",
        "step": STEP,
        "mode": "canary",
        "share": 0.0,
        "withheld": "this node has heard no beat",
    }
    assert KEY.hex() not in text
    assert (
        f'evergreen_release_withheld{{use_case="{NAME}"}} 1.0' in client.ask("GET", "/metrics").text
    )


def test_a_release_that_ends_takes_its_series_with_it(client: Client, tmp_path: Path) -> None:
    serve(client)
    client.serve(1)
    assert "evergreen_release_share{" not in client.ask("GET", "/metrics").text
    assert "release" not in client.ask("GET", "/health").json()["use_cases"][NAME]
