"""Which arm answers, and that a challenger's failure is the caller's no more than a flag."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from include.errors import Unavailable
from include.predictions.log import closed_segments
from include.predictions.reading import read
from include.predictions.window_counts import CLUSTERS, ERRORS, REQUESTS
from include.serving import answering
from include.serving.assignment import WHOLE, Assignment
from include.serving.child_link import Late
from include.serving.evidence import WindowKey
from include.serving.http import Refusal
from include.serving.snapshot import Loaded, Online
from tests.builders.application import Client
from tests.builders.challenger import HANGS, KEY, RELEASE, STEP, Challenger, served_release
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
    client.app.evidence.fold()
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for key, window in client.app.evidence.windows.items():
        assert isinstance(key, WindowKey)
        assert (key.release, key.step) == (RELEASE, STEP)
        tally = window.tally
        assert len(tally.rows) == CLUSTERS
        found[key.arm, key.answering] = {
            "requests": sum(row[REQUESTS] for row in tally.rows),
            "errors": sum(row[ERRORS] for row in tally.rows),
            "kinds": dict(tally.kinds),
            "lacks": dict(tally.lacks),
        }
    return found


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
    client: Client, monkeypatch: pytest.MonkeyPatch, failure: float | Exception, reason: str
) -> None:
    monkeypatch.setattr(answering, "_WITH_ITS_QUEUE", 0.05)
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
    serve(client, lambda row: HANGS)
    rows = [{"entity": number % 200} for number in range(count)]
    results = client.ask("POST", f"/v1/{NAME}/batch", json={"rows": rows}).json()["results"]
    assert [one["entity"] for one in results] == [row["entity"] for row in rows]
    assert {one["arm"] for one in results} == {"champion"}
    assert {tuple(one["flags"]) for one in results} == {("fallback",)}
    kinds = counts(client)["challenger", "champion"]["kinds"]
    assert kinds == {"model_late": count}


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
