"""The routes beside predict: pages, methods, and what needs the token."""

from __future__ import annotations

import json

import pytest

from include.deployment.rollback import Order
from include.errors import ConfigError, Conflict, Unavailable
from tests.builders.application import TOKEN, Client
from tests.builders.serving import NAME

BEARER = {"authorization": f"Bearer {TOKEN}"}
ROLLBACK = f"/v1/{NAME}/rollback"


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/health", "application/json"),
        ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
        ("/openapi.json", "application/json"),
        ("/docs", "text/html; charset=utf-8"),
        ("/releases", "text/html; charset=utf-8"),
        (f"/v1/{NAME}/model", "application/json"),
    ],
)
def test_pages_are_read_by_get_and_head_alone(client: Client, path: str, media_type: str) -> None:
    client.serve()
    for method in ("GET", "HEAD"):
        answer = client.ask(method, path)
        assert (answer.status_code, answer.headers["content-type"]) == (200, media_type)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-request-id"]
    refused = client.ask("POST", path)
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET")
    assert refused.json()["error"]["code"] == "method"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/health/",
        "/health%0a",
        "/v1",
        f"/v1/{NAME}",
        f"/v1/{NAME}/model%0A",
        "/v1/a/b/c",
        "/static/x",
    ],
)
def test_another_path_is_no_page(client: Client, path: str) -> None:
    client.serve()
    answer = client.ask("GET", path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert answer.json()["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize("route", ["model", "reload", "rollback"])
def test_a_use_case_is_looked_up_before_the_method(client: Client, route: str) -> None:
    code = client.ask("PUT", f"/v1/{NAME}/{route}", headers=BEARER).json()["error"]["code"]
    assert code == "starting"
    client.serve()
    answer = client.ask("PUT", f"/v1/nobody/{route}", headers=BEARER)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_use_case")
    assert NAME in answer.json()["error"]["message"]


def test_health_says_what_answers(client: Client) -> None:
    client.serve(problems=("challenger: it is damaged",), generation=4)
    client.app.table.healthy = False
    assert client.ask("GET", "/health").json() == {
        "status": "degraded",
        "records": {"reachable": False, "rows_from": "records"},
        "tokens": "ok",
        "use_cases": {
            NAME: {
                "model_version": 1,
                "arm": "champion",
                "epoch": 1,
                "generation": 4,
                "problems": ["challenger: it is damaged"],
                "roles": {},
            }
        },
    }


def test_metrics_come_in_the_format_that_is_accepted(client: Client) -> None:
    accept = {"accept": "application/openmetrics-text; version=1.0.0"}
    answer = client.ask("GET", "/metrics", headers=accept)
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer é"],
)
def test_without_the_token_nothing_changes(client: Client, authorization: str | None) -> None:
    client.serve()
    headers = {} if authorization is None else {"authorization": authorization.encode("latin-1")}
    for route in ("rollback", "reload"):
        answer = client.ask("POST", f"/v1/{NAME}/{route}", json={"reason": "x"}, headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        assert answer.json()["error"]["code"] == "unauthorised"
    assert client.asked == []
    assert 'event="unauthorised"' in client.ask("GET", "/metrics").text


def test_a_rollback_is_passed_on_with_who_and_why(client: Client) -> None:
    client.serve()
    order = {"reason": "r" * 2000, "actor": "a" * 200, "version": 7, "request_id": "mine"}
    answer = client.ask("POST", ROLLBACK, json=order, headers=BEARER)
    assert answer.status_code == 200
    ((name, given),) = client.asked
    assert name == NAME
    # Whoever has the token may say any name: it is no proof, and stands apart.
    assert given == Order(
        actor="alice", claim="a" * 80, reason="r" * 1000, version=7, request_id="mine"
    )
    client.settled = False
    answer = client.ask(
        "POST",
        ROLLBACK,
        json={"reason": "bad", "generation": 3},
        headers={"authorization": f"bearer {TOKEN}", "x-request-id": "of the header"},
    )
    assert answer.status_code == 202
    assert client.asked[-1][1] == Order(
        actor="alice", reason="bad", generation=3, request_id="of the header"
    )


def test_long_request_ids_of_one_beginning_are_two_orders(client: Client) -> None:
    client.serve()
    for end in ("1", "2", "1"):
        order = {"reason": "bad", "version": 7, "request_id": "x" * 90 + end}
        assert client.ask("POST", ROLLBACK, json=order, headers=BEARER).status_code in (200, 202)
    first, second, again = (given.request_id for _, given in client.asked)
    assert first == again != second
    assert len(first) <= 80


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[" * 10_000, 422),
        (b"\xff", 400),
        (b"{}", 422),
        (b'{"reason": " "}', 422),
        (b'{"reason": 1}', 422),
        (b'{"reason": "it names nothing"}', 422),
        (b'{"reason": "x", "more": 1}', 422),
        (b'{"reason": "' + b"x" * (2 << 20) + b'"}', 413),
    ],
)
def test_a_rollback_needs_a_reason_in_json(client: Client, content: bytes, status: int) -> None:
    client.serve()
    headers = {**BEARER, "content-type": "application/json"}
    answer = client.ask("POST", ROLLBACK, content=content, headers=headers)
    assert (answer.status_code, client.asked) == (status, [])


def test_a_reload_needs_no_body(client: Client) -> None:
    client.serve()
    answer = client.ask("POST", f"/v1/{NAME}/reload", headers=BEARER)
    assert json.loads(answer.content) == {"done": [NAME]}


@pytest.mark.parametrize(
    ("error", "status"),
    [(Conflict("no way back"), 409), (ConfigError("no such"), 422), (Unavailable("away"), 503)],
)
def test_an_error_of_ours_is_answered_with_its_message(
    client: Client, error: Exception, status: int
) -> None:
    client.serve()
    client.error = error
    answer = client.ask("POST", ROLLBACK, json={"reason": "bad", "version": 1}, headers=BEARER)
    assert (answer.status_code, answer.json()["error"]["message"]) == (status, str(error))
