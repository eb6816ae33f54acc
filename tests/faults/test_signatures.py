"""Fault 63: a model that was changed, or that nobody vouches for, is refused before it is loaded.

What serves goes on, but for one whose key is revoked: then the model before it answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from include.clock import utc_now
from include.config.settings import Settings
from include.errors import Conflict
from include.models import public_keys
from include.models.private_key import open_signer, rotate
from include.models.public_keys import REVOKED
from include.models.signing import COLUMNS, sign, sign_here, signed_columns
from include.records.records import Model
from tests.builders.serving import NAME, ROW, Desk, Node, until
from tests.builders.stopwatch import Stopwatch

SECONDS = 5.0  # within which a running node follows a revocation


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def one_digit(desk: Desk, model: Model) -> None:
    path = Path(model.bundle) / "model.txt"
    content = path.read_text()
    at = content.index("leaf_value=") + len("leaf_value=-0.0")
    digit = str((int(content[at]) + 1) % 10)
    path.write_text(content[:at] + digit + content[at + 1 :])


def added(desk: Desk, model: Model) -> None:
    (Path(model.bundle) / "more.txt").write_text("1")


def removed(desk: Desk, model: Model) -> None:
    (Path(model.bundle) / "golden.json").unlink()


def renamed(desk: Desk, model: Model) -> None:
    (Path(model.bundle) / "golden.json").rename(Path(model.bundle) / "rows.json")


def unsigned(desk: Desk, model: Model) -> None:
    record(desk, replace(model, **dict.fromkeys(COLUMNS)))


def signed_for_another(desk: Desk, model: Model) -> None:
    other = desk.records.models.get(NAME, 1)
    assert other is not None
    record(desk, replace(model, **signed_columns(other)))


def signed_by_a_stranger(desk: Desk, model: Model) -> None:
    elsewhere = Settings(home=desk.settings.home / "elsewhere")
    record(desk, sign_here(elsewhere, model, at=utc_now(), signed_as="packaging"))


def signed_after_its_key_had_ended(desk: Desk, model: Model) -> None:
    """By whoever kept the private key of before."""
    old = open_signer(desk.settings, utc_now())
    rotate(desk.settings, utc_now() - timedelta(days=1))
    record(desk, sign(model, old, at=utc_now(), signed_as="packaging"))


def of_another_digest(desk: Desk, model: Model) -> None:
    """The files of another real model, and a row that says so: all of it fits but the signature."""
    files = desk.train(50)
    statement = "UPDATE models SET model_digest = :digest, bundle = :bundle WHERE version = :of"
    values = {"digest": files.model_digest, "bundle": files.bundle, "of": model.version}
    with desk.records.transaction() as session:
        session.execute(text(statement), values)


def record(desk: Desk, model: Model) -> None:
    desk.records.models.update(NAME, model.version, **signed_columns(model))


def edit_key(desk: Desk, key: str, **changes: object) -> None:
    path = desk.settings.signing_keys_folder / f"{key}.json"
    content = json.loads(path.read_text())
    path.write_text(
        json.dumps({**content, **{name: str(value) for name, value in changes.items()}})
    )


def role_of(node: Node, role: str) -> dict[str, Any]:
    found: dict[str, Any] = node.health.get("roles", {}).get(role, {})
    return found


DAMAGES: dict[Callable[[Desk, Model], None], str] = {
    one_digit: "it was changed",
    added: "does not belong in a model bundle",
    removed: "is missing",
    renamed: "does not belong in a model bundle",
    unsigned: "is not signed",
    signed_for_another: "is not of what its row says",
    signed_by_a_stranger: "is unknown here",
    of_another_digest: "is not of what its row says",
    signed_after_its_key_had_ended: "was retired",
}


def test_what_is_not_as_it_was_signed_is_refused_and_serving_goes_on(desk: Desk) -> None:
    desk.record_route(champion=desk.train(1).version)
    with desk.node() as node:
        node.serves(1)
        before = node.predict(features=ROW).body["score"]
        for version, (damage, reason) in enumerate(DAMAGES.items(), 2):
            damage(desk, desk.train(version))
            desk.record_route(champion=version, previous=1)
            until(
                lambda version=version: is_refused(node, version),  # type: ignore[misc]
                what=f"refusal ({damage.__name__})",
            )
            assert reason in role_of(node, "champion")["reason"], damage.__name__
            answer = node.predict(features=ROW)
            assert (answer.status, answer.body["model_version"]) == (200, 1), damage.__name__
            assert answer.body["score"] == before


def is_refused(node: Node, version: int) -> bool:
    """A file that is missing may be on its way, and is looked for again; nothing is loaded."""
    told = role_of(node, "champion")
    return told.get("version") == version and told.get("state") in ("refused", "could_not")


@pytest.mark.slow
def test_a_key_that_is_revoked_while_it_serves_hands_over_to_the_model_before(desk: Desk) -> None:
    desk.train(1)
    rotate(desk.settings, utc_now())
    bad = desk.train(2)
    desk.record_route(champion=2, previous=1)
    with desk.node() as node:
        node.serves(2)
        until(lambda: role_of(node, "previous").get("state") == "ready", what="the one before")
        revoke(desk, bad)
        stopwatch = Stopwatch()
        until(lambda: node.health.get("model_version") == 1, what="model 1")
        assert stopwatch.seconds < SECONDS
        answer = node.predict(features=ROW)
        assert (answer.status, answer.body["model_version"]) == (200, 1)
        assert "revoked" in role_of(node, "champion")["reason"]
        node.stop()
        node.start(healthy=False)
        node.serves(1)
        assert "revoked" in role_of(node, "champion")["reason"], "nor after a restart"


def test_with_no_other_model_nothing_of_a_revoked_key_answers(desk: Desk) -> None:
    model = desk.train(1)
    desk.record_route(champion=1)
    with desk.node() as node:
        node.serves(1)
        revoke(desk, model)
        stopwatch = Stopwatch()
        until(lambda: node.predict(features=ROW).status == 503, what="end")
        assert stopwatch.seconds < SECONDS
        # A person looks at the model, finds it sound, and packages it: another key signs it.
        rotate(desk.settings, utc_now())
        record(desk, desk.signed(model))
        desk.record_route(champion=1)
        until(lambda: node.predict(features=ROW).status == 200, what="answer")


@pytest.mark.slow
def test_rotated_expired_and_restarted_the_champion_answers(desk: Desk) -> None:
    model = desk.candidate(1)
    with desk.node() as node:
        assert desk.deploy().state == "done"
        node.serves(1)
        new, old = rotate(desk.settings, utc_now())
        assert old == model.signing_key != new
        later = desk.candidate(2, "2026-03-02")
        assert later.signing_key == new
        edit_key(desk, str(old), expires_at=later.signed_at)
        edit_key(desk, new, expires_at=later.signed_at)
        with pytest.raises(Conflict, match="expired"):
            desk.deploy("2026-03-02")
        node.stop()
        node.start()
        node.serves(1)
        assert node.predict(features=ROW).status == 200


def test_without_a_list_of_revoked_keys_nothing_new_is_loaded(desk: Desk) -> None:
    desk.record_route(champion=desk.train(1).version)
    path = desk.settings.signing_keys_folder / REVOKED
    content = path.read_bytes()
    with desk.node() as node:
        node.serves(1)
        desk.train(2)
        path.unlink()
        desk.record_route(champion=2, previous=1)
        until(lambda: role_of(node, "champion").get("state") == "could_not", what="it waits")
        assert "list of revoked keys" in role_of(node, "champion")["reason"]
        assert node.predict(features=ROW).body["model_version"] == 1
        path.write_bytes(content)
        node.serves(2)


def test_a_node_learns_a_new_key_while_it_runs(desk: Desk) -> None:
    desk.record_route(champion=desk.train(1).version)
    with desk.node() as node:
        node.serves(1)
        new, _ = rotate(desk.settings, utc_now())
        path = desk.settings.signing_keys_folder / f"{new}.json"
        content = path.read_bytes()
        model = desk.train(2)
        path.unlink()
        assert model.signing_key == new
        desk.record_route(champion=2, previous=1)
        until(lambda: role_of(node, "champion").get("state") == "refused", what="refusal")
        path.write_bytes(content)
        node.serves(2)


def revoke(desk: Desk, model: Model) -> None:
    folder, key = desk.settings.signing_keys_folder, str(model.signing_key)
    public_keys.revoke(folder, key, at=utc_now(), actor="anna", reason="the laptop is lost")
