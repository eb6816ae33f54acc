"""The serving node, a real one on a free port: answers, refusals, limits, pages, the log."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from include.config.settings import ROOT, Settings
from include.errors import ConfigError
from include.predictions.log import closed_segments
from include.predictions.reading import read
from include.serving.node import allowed_hosts, serve
from tests.builders.serving import NAME, NOW, ROW, Desk, Node

PREDICT = f"/v1/{NAME}/predict"
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    made = Desk(tmp_path_factory.mktemp("node"))
    rows = {1: (NOW, ROW), 2: (NOW - timedelta(days=60), ROW), 3: (NOW, dict.fromkeys(ROW))}
    made.publish(rows)
    return made


@pytest.fixture(scope="module")
def node(desk: Desk) -> Iterator[Node]:
    with desk.node() as running:
        assert running.predict(entity=1).body["error"]["code"] == "no_model"
        desk.candidate(1)
        assert desk.deploy().state == "done"
        running.serves(1)
        yield running


def test_an_entity_is_answered_in_full(node: Node, desk: Desk) -> None:
    answer = node.post(PREDICT, json={"entity": 1}, headers={"x-request-id": "mine-1"})
    assert answer.status == 200
    body = answer.body
    assert answer.headers["x-request-id"] == body["request_id"] == "mine-1"
    assert body["model_version"] == 1
    assert body["model_digest"] == desk.records.models.get(NAME, 1).model_digest  # type: ignore[union-attr]
    assert body["as_of"] == NOW.isoformat()
    # Behind the history's end, not behind today.
    assert body["age_seconds"] == timedelta(days=22).total_seconds()
    assert body["flags"] == []
    by_row = node.predict(features=ROW).body
    assert by_row["score"] == body["score"]
    assert (by_row["as_of"], by_row["entity"]) == (None, None)
    assert body["decision"] == ("accept" if body["score"] >= 0.5 else "refer")


def test_nulls_and_unseen_categories_are_scored(node: Node) -> None:
    assert node.predict(entity=3).status == 200
    assert node.predict(features={**ROW, "region": "unseen", "income": None}).status == 200


def test_a_wrong_field_is_named_and_what_is_no_json_is_told_apart(node: Node) -> None:
    wrong = node.predict(features={**ROW, "income": True})
    assert (wrong.status, wrong.body["error"]["field"]) == (422, "features.income")
    assert wrong.body["request_id"]
    unreadable = node.post(PREDICT, content=b'{"entity": NaN}', headers=JSON)
    assert (unreadable.status, unreadable.body["error"]["code"]) == (400, "bad_json")


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "application/vnd.bentoml+pickle"},
        {"content-type": "multipart/form-data; boundary=x"},
        {"content-type": "text/plain"},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ],
)
def test_415_for_another_media_type(node: Node, headers: dict[str, str]) -> None:
    assert node.post(PREDICT, content=b"{}", headers=headers).status == 415


def test_413_declared_or_streamed(node: Node) -> None:
    big = b'{"entity": "' + b"x" * (2 << 20) + b'"}'
    assert node.post(PREDICT, content=big, headers=JSON).status == 413
    pieces = (big[at : at + 65536] for at in range(0, len(big), 65536))
    assert node.post(PREDICT, content=pieces, headers=JSON).status == 413
    assert node.predict(entity=1).status == 200


def test_unknown_and_stale_entities_are_refused(node: Node) -> None:
    unknown, stale = node.predict(entity=99), node.predict(entity=2)
    assert (unknown.status, unknown.body["error"]["flags"]) == (404, ["unknown"])
    assert (stale.status, stale.body["error"]["flags"]) == (409, ["stale"])


def test_routes_and_methods(node: Node) -> None:
    assert node.get(PREDICT).status == 405
    assert node.post("/health").status == 405
    assert node.post("/v1/nobody/predict", json={"entity": 1}).status == 404
    assert node.get("/v1/../health").status in (200, 404)
    assert node.get("/nothing").status == 404


def test_what_changes_state_needs_the_token(node: Node) -> None:
    wrong = {"authorization": "Bearer wrong"}
    for route in ("rollback", "reload"):
        assert node.post(f"/v1/{NAME}/{route}", json={"reason": "x"}, headers=wrong).status == 401
    assert "without a valid token" in node.log.read_text()


def test_reload_and_a_rollback_without_a_way_back(node: Node) -> None:
    assert node.post(f"/v1/{NAME}/reload", headers=node.token).body["champion"] == 1
    assert (
        node.post(f"/v1/{NAME}/rollback", json={}, headers=node.token).body["error"]["field"]
        == "reason"
    )
    assert (
        node.post(
            f"/v1/{NAME}/rollback", json={"reason": "bad", "version": 1}, headers=node.token
        ).status
        == 409
    )
    assert node.predict(entity=1).body["model_version"] == 1


def test_only_names_of_this_machine_are_answered(node: Node) -> None:
    assert node.get("/health", headers={"host": "evil.example"}).status == 421
    assert (
        node.get("/health", headers={"host": f"localhost:{node.settings.node_port}"}).status == 200
    )


def test_pages(node: Node) -> None:
    document = node.get("/openapi.json").body
    assert PREDICT in document["paths"]
    assert document["paths"][f"/v1/{NAME}/rollback"]["post"]["security"]
    page = node.get("/docs")
    assert "<script" not in page.body
    assert "http" not in page.body.replace("http://HOST:PORT", "")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert node.get(f"/v1/{NAME}/model").body["champion"]["version"] == 1


def test_metrics_have_a_bounded_number_of_series(node: Node) -> None:
    def series() -> set[str]:
        return {line.rpartition(" ")[0] for line in node.get("/metrics").body.splitlines()}

    def ask(numbers: range) -> None:
        for number in numbers:
            node.get(f"/x{number}")
            node.get(f"/v1/x{number}/model")

    series()  # so that its own answer is counted before
    ask(range(100, 130))
    before = series()
    ask(range(200, 260))
    new = series() - before
    # Some series begin with the time that a node is up, such as the sizes of the home folder: of
    # those that count answers none does, and of all together fewer than names were asked for.
    assert not {one for one in new if one.startswith("evergreen_answers")}
    assert len(new) < 60
    assert not re.search(r"\bx[12]\d\d\b", str(node.get("/metrics").body))


def test_every_answer_is_on_record(node: Node, desk: Desk) -> None:
    asked = [node.predict(entity=1).body for _ in range(5)]
    node.stop()
    rows = {
        row["request_id"]: row
        for row in read(closed_segments(desk.settings.home, NAME)).to_pylist()
    }
    for answer in asked:
        row = rows[answer["request_id"]]
        assert (row["score"], row["version"], row["entity"]) == (answer["score"], 1, "1")
        assert json.loads(row["features"]) == ROW
        assert row["features_at"] == NOW
    assert desk.records.nodes.of(NAME)[0].state == "stopped"


def test_fallbacks_score_and_say_so(tmp_path: Path) -> None:
    desk = Desk(tmp_path, unknown="score", stale="score")
    desk.publish({2: (NOW - timedelta(days=60), ROW)})
    desk.candidate(1)
    with desk.node() as node:
        desk.deploy()
        node.serves(1)
        unknown, stale = node.predict(entity=99), node.predict(entity=2)
        assert (unknown.status, unknown.body["flags"]) == (200, ["unknown", "fallback"])
        assert (stale.status, stale.body["flags"]) == (200, ["stale", "fallback"])


@pytest.mark.parametrize(
    ("address", "more"),
    [
        ("127.0.0.1", set()),
        ("localhost", set()),
        ("::1", set()),
        ("127.0.0.2", {"127.0.0.2"}),
        ("127.255.0.1", {"127.255.0.1"}),
    ],
)
def test_on_a_loopback_address_only_this_machines_names_are_answered(
    address: str, more: set[str]
) -> None:
    assert allowed_hosts(address) == {"127.0.0.1", "localhost", "[::1]"} | more


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.1", "node.example"])
def test_on_another_address_any_name_is(address: str) -> None:
    assert allowed_hosts(address) is None


def test_heavy_libraries_stay_outside_the_node() -> None:
    code = (
        "import sys; import include.serving.node, include.serving.reconciler\nimport "
        "include.deployment.rollout, include.models.lightgbm_kind, include.models.predictor\n"
        "include.models.predictor._libraries()\nheavy = {'feast', 'mlflow', 'pandas', 'sklearn', "
        "'airflow', 'bentoml', 'pyarrow', 'lightgbm', 'deltalake'}\nprint(sorted(heavy & "
        "set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_node_with_an_address_of_no_store_does_not_start(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, online_url=SecretStr("http://:hunter2@host"))
    with pytest.raises(ConfigError, match="EVERGREEN_ONLINE_URL"):
        serve(settings)
