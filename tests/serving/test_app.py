"""The application without a socket: whom it answers, who answers instead, what it counts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from include.errors import ArtefactError, Unavailable
from include.predictions.log import closed_segments
from include.predictions.reading import read
from include.predictions.window_counts import ABOVE, ERRORS, REQUESTS, SCORED, SHADOW, total
from include.serving.snapshot import Loaded, Online, RemoteScore, Served
from tests.builders.application import TOKEN, Client
from tests.builders.challenger import Challenger, served_release
from tests.builders.counted import by_arms
from tests.builders.serving import FEATURE_SET, NAME, NOW, ROW, Desk


class Broken:
    """A model that gives no answer, in this process or in one of its own."""

    def __init__(self, error: Exception | None = None, score: float = float("nan")) -> None:
        self._error, self._score = error, score
        self.features, self.alive = list(ROW), True

    def one(self, row: object) -> float:
        if self._error is not None:
            raise self._error
        return self._score

    async def ask(self, row: object) -> RemoteScore:
        return RemoteScore(self.one(row), 1234)

    def close(self) -> None:
        """It has no process."""


def broken(**scorers: Broken) -> Loaded:
    return Loaded(9, "sha256:9", "fs", "2026-03-01", **scorers)


def numbers(client: Client) -> list[str]:
    """Return the series that the application has, without their help texts."""
    lines = client.ask("GET", "/metrics").text.splitlines()
    return [line for line in lines if not line.startswith("#")]


def logged(client: Client) -> list[dict[str, Any]]:
    """Return what the use case has on record, oldest first."""
    client.app.log.close()
    return read(closed_segments(client.desk.settings.home, NAME)).to_pylist()


def test_an_answer_names_its_request_and_is_logged_before(client: Client) -> None:
    client.serve()
    given = client.ask(
        "POST", f"/v1/{NAME}/predict", json={"features": ROW}, headers={"x-request-id": "r-1"}
    )
    own = client.predict(features=ROW)
    rows = logged(client)
    assert given.json()["request_id"] == given.headers["x-request-id"] == "r-1"
    assert [row["caller_id"] for row in rows[-2:]] == ["r-1", None]
    assert rows[-1]["request_id"] == own.json()["request_id"]
    assert rows[-2]["request_id"] != "r-1", "two callers may take the same id"


@pytest.mark.parametrize("name", ["x" * 65, "a b", "a\tb", ""])
def test_a_request_id_that_could_not_be_logged_as_it_is_is_replaced(
    client: Client, name: str
) -> None:
    answer = client.ask("GET", "/health", headers={"x-request-id": name})
    assert answer.headers["x-request-id"] not in ("", name)


@pytest.mark.parametrize(
    "champion",
    [
        broken(scorer=Broken()),
        broken(scorer=Broken(ArtefactError("damaged"))),
        broken(remote=Broken()),
        broken(remote=Broken(Unavailable("it has ended"))),
    ],
)
def test_the_model_before_answers_for_one_that_does_not(client: Client, champion: Loaded) -> None:
    previous = client.serve(1)
    client.serve(1, champion=champion, previous=previous)
    answer = client.predict(features=ROW).json()
    assert (answer["model_version"], answer["arm"], answer["flags"]) == (
        1,
        "fallback",
        ["fallback"],
    )
    assert f'evergreen_events_total{{event="fallback",use_case="{NAME}"}} 1.0' in numbers(client)


def test_a_flag_is_given_once(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "scores", unknown="score")
    desk.publish({1: (NOW, ROW)})
    client = Client(desk)
    online = Online(desk.settings.home / "online" / f"{NAME}.db")
    previous = client.serve(1)
    champion = replace(previous, scorer=Broken())
    client.serve(1, champion=champion, previous=previous, online=online)
    assert client.predict(entity=99).json()["flags"] == ["unknown", "fallback"]


def test_without_a_model_before_it_the_failure_is_answered(client: Client) -> None:
    client.serve(1, champion=broken(scorer=Broken()))
    answer = client.predict(features=ROW)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "unavailable")
    assert answer.headers["retry-after"] == "5"


def test_a_feature_that_a_model_of_its_own_process_needs_is_named(client: Client) -> None:
    client.serve(1, champion=broken(remote=Broken(score=0.5)))
    part = {name: value for name, value in ROW.items() if name != "jobs"}
    assert client.predict(features=part).json()["error"]["field"] == "features.jobs"
    assert client.predict(features=ROW).json()["score"] == 0.5
    assert logged(client)[-1]["model_us"] == 1234, "its own time, without the way to it"


def test_a_feature_that_the_model_needs_is_named(client: Client) -> None:
    client.serve()
    answer = client.predict(features={"income": 1.0})
    assert (answer.status_code, answer.json()["error"]["field"]) == (422, "features.jobs")


def test_before_the_start_callers_are_asked_to_come_again(client: Client) -> None:
    answer = client.predict(features=ROW)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "starting")
    assert client.ask("GET", "/health").json()["status"] == "starting"


@pytest.mark.parametrize("host", ["node.example", "NODE.example:8000", "[::1]:8000"])
def test_a_name_of_the_node_is_answered_with_any_port(client: Client, host: str) -> None:
    assert client.ask("GET", "/health", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "node.example.evil", "[::2]", ""])
def test_another_name_is_refused(client: Client, host: str) -> None:
    answer = client.ask("GET", "/health", headers={"host": host})
    assert (answer.status_code, answer.json()["error"]["code"]) == (421, "wrong_host")


def test_answers_are_counted_under_names_that_are_served_only(client: Client) -> None:
    client.serve()
    client.predict(features=ROW)
    client.predict(features={})
    client.ask("GET", f"/v1/{NAME}/model")
    client.ask("GET", f"/v1/{NAME}/reload", headers={"authorization": f"Bearer {TOKEN}"})
    for path in ("/v1/nobody/predict", "/v1/nobody/model", "/no-page", f"/v1/{NAME}/no-page"):
        client.ask("GET", path)
    answers = [line for line in numbers(client) if line.startswith("evergreen_answers_total")]
    assert answers == [
        f'evergreen_answers_total{{route="predict",status="200",use_case="{NAME}"}} 1.0',
        f'evergreen_answers_total{{route="predict",status="422",use_case="{NAME}"}} 1.0',
        f'evergreen_answers_total{{route="model",status="200",use_case="{NAME}"}} 1.0',
        f'evergreen_answers_total{{route="reload",status="405",use_case="{NAME}"}} 1.0',
        'evergreen_answers_total{route="",status="404",use_case=""} 4.0',
    ]


def test_a_use_case_that_is_forgotten_is_shown_no_more(client: Client) -> None:
    client.serve()
    shown = f'evergreen_model_version{{role="champion",use_case="{NAME}"}} 1.0'
    assert shown in numbers(client)
    client.app.forget(NAME)
    assert not any("evergreen_model_version" in line for line in numbers(client))
    assert client.predict(features=ROW).json()["error"]["code"] == "unknown_use_case"


def test_a_use_case_without_a_model_says_why(client: Client) -> None:
    client.app.table.started = True
    client.app.install(Served(client.use_case, problems=("champion: /srv/ev/m/7 is damaged",)))
    answer = client.predict(features=ROW)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "no_model")
    assert "(champion: 7 is damaged)" in answer.json()["error"]["message"], "without its folder"
    assert TOKEN not in answer.text


def test_whatever_is_asked_makes_no_series_of_its_own(client: Client) -> None:
    client.serve()

    def series() -> set[str]:
        return {line.rpartition(" ")[0] for line in numbers(client)}

    def ask_around(at: int) -> None:
        token = {"authorization": f"Bearer wrong-{at}"}
        for method in ("GET", "POST", "PUT", f"M{at}"):
            client.ask(method, f"/path-{at}", headers={"x-request-id": f"id-{at}"})
            for route in ("model", "batch", "rollback", f"none-{at}"):
                client.ask(method, f"/v1/{NAME}/{route}", headers=token)
                client.ask(method, f"/v1/nobody-{at}/{route}", headers=token)
            client.ask(method, f"/docs/assets/{at}.js", headers={"host": f"evil-{at}.example"})
        client.predict(features={f"feature-{at}": 1})
        client.predict(entity=at)

    series()  # that asks for numbers, which is counted too
    ask_around(0)
    before = series()
    for at in range(1, 6):
        ask_around(at)
    assert series() == before


def test_what_is_scored_without_its_features_is_no_evidence_on_scores(tmp_path: Path) -> None:
    """All get nearly the same score then: of few requests that looks like a challenger gone mad."""
    desk = Desk(tmp_path)
    desk.write_use_case(store="score")
    client = Client(desk)
    path = tmp_path / "damaged.db"
    path.write_bytes(b"no database at all, " * 500)
    challenger = Loaded(
        2, "sha256:two", FEATURE_SET, "2026-03-02", remote=Challenger(lambda row: 0.5)
    )
    client.serve(1, online=Online(path), challenger=challenger, release=served_release(2000))
    asked = range(20)
    for entity in asked:
        assert client.predict(entity=entity).json()["flags"][0] == "degraded"
    found = by_arms(client.app.evidence)
    counted = total(one for (assigned, _), one in found.items() if assigned != SHADOW)
    assert (counted.column(REQUESTS), counted.column(SCORED)) == (len(asked), 0)
    assert (counted.column(ERRORS), counted.column(ABOVE)) == (0, 0)
    mirrored = client.app.shadow.describe(NAME)
    assert (mirrored.get("answered", 0), mirrored.get("failed", 0)) == (0, 0)


def test_a_store_that_cannot_be_read_is_no_models_fault(tmp_path: Path) -> None:
    client = Client(Desk(tmp_path))
    path = tmp_path / "damaged.db"
    path.write_bytes(b"no database at all, " * 500)
    previous = client.serve(1)
    client.serve(1, previous=previous, online=Online(path))
    refused = client.predict(entity=1)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "store_away")
    assert refused.json()["error"]["flags"] == ["degraded"]
    assert client.predict(features=ROW).status_code == 200
    assert not any("champion_failed" in line or "fallback" in line for line in numbers(client))
