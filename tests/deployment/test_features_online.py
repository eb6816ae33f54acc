"""A challenger is released only with its features online; a first one too."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.deployment import deploy_model
from include.errors import ArtefactError, Unavailable
from include.features import online_rows, online_store
from tests.builders.serving import FEATURE_SET, NAME, NOW, ROW, Desk, until

SECOND = "2026-03-02"
OTHER_SET = "ffffffffff"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """Features that are kept online, since they do not come with the request."""
    desk = Desk(tmp_path)
    path = desk.usecases / f"{NAME}.yaml"
    path.write_text(
        path.read_text().replace(
            "source: events, columns: {income",
            "source: events, visible: at_as_of, columns: {income",
        )
    )
    desk.apply()
    return desk


def publish(desk: Desk, feature_set: str, entities: range) -> None:
    columns = tuple(ROW)
    from datetime import timedelta

    what = online_rows.OnlineSet(
        feature_set, columns, "2026-03-09", timedelta(days=35), NOW, inputs="", digest=""
    )
    at = round(NOW.timestamp() * 1e6)
    rows = [online_rows.pack(one, at, [ROW[name] for name in columns]) for one in entities]
    online_store.publish(desk.settings.home / "online" / f"{NAME}.db", what, rows)


def test_a_model_without_online_features_is_not_released_until_they_are_there(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deploy_model, "WAIT_SECONDS", 10.0)  # a node tries a model in 1 to 5
    desk.candidate(1)
    with desk.node() as node:
        with pytest.raises(Unavailable, match=f"feature set {FEATURE_SET} is not online"):
            desk.deploy()
        assert "next_try_seconds" in node.health["roles"]["challenger"]
        publish(desk, FEATURE_SET, range(100))
        until(
            lambda: node.health["roles"]["challenger"]["state"] == "ready",
            what="challenger once its features are online",
        )
        assert desk.deploy().state == "done"
        assert node.predict(entity=1).status == 200
        # The next one reads another set, which is online for too few of the champion's entities.
        desk.candidate(2, SECOND, feature_set=OTHER_SET)
        publish(desk, OTHER_SET, range(94))
        with pytest.raises(Unavailable, match=r"94\.0% of the champion's entities"):
            desk.deploy(SECOND)
        assert node.predict(entity=99).body["model_version"] == 1
        publish(desk, OTHER_SET, range(96))
        until(
            lambda: node.health["roles"]["challenger"]["state"] == "ready",
            what="challenger once enough is online",
        )
        assert desk.deploy(SECOND).outputs["champion"] == 2
        # An entity that only the model before has features of is answered by it, and it says so.
        node.serves(2)
        assert node.predict(entity=1).body["model_version"] == 2


def test_a_champion_whose_features_went_away_is_answered_for(desk: Desk) -> None:
    for version, feature_set in ((1, FEATURE_SET), (2, OTHER_SET)):
        desk.train(version, feature_set=feature_set)
    publish(desk, FEATURE_SET, range(10))
    desk.record_route(champion=1)
    desk.record_route(champion=2, previous=1)
    with desk.node() as node:
        node.serves(2)
        until(lambda: node.health["roles"]["previous"]["state"] == "ready", what="previous model")
        answer = node.predict(entity=1)
        assert (answer.status, answer.body["model_version"]) == (200, 1)
        assert (answer.body["arm"], answer.body["flags"]) == ("fallback", ["fallback"])


def test_a_damaged_champion_is_answered_for_and_a_release_wants_a_rollback(
    desk: Desk,
) -> None:
    publish(desk, FEATURE_SET, range(10))
    for version in (1, 2):
        model = desk.train(version)
    (Path(model.bundle) / "model.txt").write_text("damaged")
    desk.record_route(champion=1)
    desk.record_route(champion=2, previous=1)
    with desk.node() as node:
        until(lambda: node.predict(entity=1).status == 200, what="an answer")
        answer = node.predict(entity=1).body
        assert (answer["model_version"], answer["arm"], answer["flags"]) == (
            1,
            "fallback",
            ["fallback"],
        )
        assert node.health["roles"]["champion"]["state"] == "refused"
        desk.candidate(3, SECOND)
        with pytest.raises(ArtefactError, match="evergreen rollback"):
            desk.deploy(SECOND)
