"""Who may ask what: every route walked with every role, without a token and with a wrong one."""

from __future__ import annotations

import base64
import json
import os
import time
from pathlib import Path

import pytest
from pydantic import SecretStr

from include.config.settings import Settings
from include.config.tokens import OWN_NAME, ROLES, Role, Token, tokens_file
from include.errors import ConfigError
from include.serving.access import Access, TokenSource, open_roles, take_news
from include.serving.http_routes import NodeRoute
from tests.builders.application import Client
from tests.builders.serving import NAME, ROW, Desk, until

SECRETS: dict[Role, str] = {role: f"{role}-" + role[0] * 40 for role in ROLES}
TOKENS = [
    Token(f"the-{role}", frozenset({role}), SecretStr(secret)) for role, secret in SECRETS.items()
]
LINES = "".join(f"the-{role} {role} {secret}\n" for role, secret in SECRETS.items())


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def needs(client: Client) -> dict[tuple[str, str], Role | None]:
    """Return the role of every route that the application has."""
    routes = client.app.routes
    assert all(isinstance(route, NodeRoute) for route in routes)
    found: dict[tuple[str, str], Role | None] = {
        (route.method, route.path.format(use_case=NAME, name="try.js")): route.role
        for route in routes
    }
    return found | {("POST", f"/v1/{NAME}/predict"): "predict"}


@pytest.fixture
def closed(asked_desk: Desk) -> Client:
    """An application that answers no role without a token."""
    client = Client(asked_desk, access=Access(TOKENS))
    client.serve()
    return client


def test_each_route_answers_its_role_alone(closed: Client) -> None:
    table = needs(closed)
    assert set(table.values()) == {None, *ROLES}
    for (method, path), role in table.items():
        answered = {
            caller: closed.ask(method, path, json={"reason": "x"}, headers=headers).status_code
            for caller, headers in {
                **{one: bearer(secret) for one, secret in SECRETS.items()},
                "nobody": {},
                "wrong": bearer("w" * 43),
                "empty": {"authorization": "Bearer "},
                "own": bearer(SECRETS["operate"][:-1]),
                "scheme": {"authorization": f"Token {SECRETS['operate']}"},
            }.items()
        }
        for caller, status in answered.items():
            if role is None or caller == role:
                assert status not in (401, 403), (path, caller)
            else:
                assert status == (403 if caller in ROLES else 401), (path, caller)
    names = {arguments[-1].actor for arguments in closed.asked if len(arguments) > 1}
    assert names == set(), "no rollback was passed on: none named what it takes back"


def test_without_a_token_nobody_learns_which_use_cases_there_are(closed: Client) -> None:
    for route in ("predict", "model", "reload", "rollback"):
        method = "GET" if route == "model" else "POST"
        known, unknown = (
            closed.ask(method, f"/v1/{name}/{route}", json={}).json()["error"]["code"]
            for name in (NAME, "nobody")
        )
        assert (known, unknown) == ("unauthorised", "unauthorised")


def test_the_actor_of_a_rollback_is_the_name_of_the_token(closed: Client) -> None:
    order = {"reason": "bad", "version": 1, "actor": "the-king", "claim": "bob"}
    path = f"/v1/{NAME}/rollback"
    assert closed.ask("POST", path, json=order, headers=bearer(SECRETS["operate"])).is_success
    ((_, given),) = closed.asked
    assert (given.actor, given.claim) == ("the-operate", "bob")


def test_a_browser_reads_pages_by_its_question_for_a_password_and_changes_nothing(
    closed: Client,
) -> None:
    def basic(secret: str) -> dict[str, str]:
        return {"authorization": "Basic " + base64.b64encode(f"me:{secret}".encode()).decode()}

    asked = closed.ask("GET", "/docs")
    assert asked.headers["www-authenticate"].startswith("Basic ")
    assert closed.ask("GET", "/docs", headers=basic(SECRETS["read"])).status_code == 200
    assert closed.ask("GET", "/docs", headers=basic(SECRETS["operate"])).status_code == 403
    for wrong in (basic("no"), {"authorization": "Basic %%%"}, {"authorization": "Basic"}):
        assert closed.ask("GET", "/docs", headers=wrong).status_code == 401
    # Another site can make a browser send this: what changes state takes no such header.
    refused = closed.ask("POST", f"/v1/{NAME}/reload", headers=basic(SECRETS["operate"]))
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")


def test_refusals_are_counted(closed: Client) -> None:
    closed.ask("POST", f"/v1/{NAME}/reload")
    closed.ask("POST", f"/v1/{NAME}/reload", headers=bearer(SECRETS["read"]))
    text = closed.ask("GET", "/metrics", headers=bearer(SECRETS["read"])).text
    for event in ("unauthorised", "forbidden"):
        assert f'evergreen_events_total{{event="{event}",use_case=""}} 1.0' in text


@pytest.mark.parametrize(
    ("host", "predict", "free"),
    [
        ("127.0.0.1", "", {"predict", "read"}),
        ("::1", "open", {"predict", "read"}),
        ("127.0.0.1", "token", set()),
        ("0.0.0.0", "", set()),
        ("0.0.0.0", "open", {"predict"}),
        ("node.example", "", set()),
    ],
)
def test_only_loopback_or_a_setting_opens_and_never_what_changes_state(
    host: str, predict: str, free: set[str]
) -> None:
    assert open_roles(Settings.model_validate({"host": host, "predict": predict})) == free


def test_tokens_are_taken_over_while_it_runs_and_a_bad_file_changes_nothing(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    path = tokens_file(settings)
    source = TokenSource(settings)
    access = Access(source.read())
    at = time.time_ns()

    def write(text: str | None) -> None:
        nonlocal at
        path.unlink(missing_ok=True)
        if text is not None:
            path.write_text(text)
            at += 1_000_000  # whatever the clock of the file system can tell apart
            os.utime(path, ns=(at, at))
        take_news(access, source.news())

    def name(secret: str) -> str:
        token = access._find(f"Bearer {secret}".encode(), "operate")
        return token.name if token else ""

    assert (source.news(), name(SECRETS["operate"])) == (None, "")
    write(LINES)
    assert (name(SECRETS["operate"]), access.problem) == ("the-operate", "")
    for bad, problem in (
        ("", "holds no token"),
        ("x operate short", "has 5"),
        (None, "is gone"),
    ):
        write(bad)
        assert problem in access.problem
        assert name(SECRETS["operate"]) == "the-operate", "a file that is cut off revokes nobody"
    write(LINES.replace("the-operate", "bob"))
    assert (name(SECRETS["operate"]), access.problem) == ("bob", "")
    write(f"the-read read {SECRETS['read']}")
    assert name(SECRETS["operate"]) == "", "who is taken out of it is out"
    assert name(settings.node_secret.get_secret_value()) == OWN_NAME


def test_a_started_node_follows_the_file_and_records_the_name(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    for version in (1, 2):
        desk.train(version)
    desk.record_route(champion=2, previous=1)
    path = tokens_file(desk.settings)
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.write_text(LINES)
    # A busy machine's records may take longer than a rollback waits for them.
    patient = "from include.serving import rollbacks; rollbacks.RECORDS_SECONDS = 30.0"
    with desk.node(patient) as node:
        node.serves(2)
        assert node.post(f"/v1/{NAME}/reload", headers=bearer(SECRETS["read"])).status == 403
        path.write_text("broken\n")
        until(lambda: node.get("/health").body["tokens"] != "ok", what="problem with the tokens")
        path.write_text(LINES.replace("the-operate", "carol"))
        until(lambda: node.get("/health").body["tokens"] == "ok", what="new tokens")
        order = {"reason": "worse", "version": 2, "claim": "on call", "actor": "root"}
        done = node.post(f"/v1/{NAME}/rollback", json=order, headers=bearer(SECRETS["operate"]))
        assert (done.status, done.body["changed"]) == (200, True)
    (entry,) = desk.records.audit.entries(NAME, action="release.rolled_back")
    assert (entry.actor, entry.details["claim"]) == ("carol", "on call")


def test_a_node_with_a_malformed_token_does_not_start(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    path = tokens_file(settings)
    path.parent.mkdir(mode=0o700)
    path.write_text("alice operate short")
    with pytest.raises(ConfigError, match="alice has 5 characters"):
        TokenSource(settings).read()


def test_a_plain_prediction_needs_its_token_as_well(tmp_path: Path) -> None:
    """The short way of predictions asks nobody else; it let everybody pass."""
    desk = Desk(tmp_path)
    desk.train(1)
    desk.record_route(champion=1)
    tokens_file(desk.settings).parent.mkdir(mode=0o700, exist_ok=True)
    tokens_file(desk.settings).write_text(LINES)
    only_read = (
        "import os; os.environ['EVERGREEN_ACCESS_LOG'] = '1'\n"
        "from include.serving import node; node.open_roles = lambda _: frozenset({'read'})"
    )
    given = ({}, bearer("w" * 43), bearer(SECRETS["read"]), bearer(SECRETS["predict"]))
    with desk.node(setup=only_read) as node:
        node.serves(1)
        path, body = f"/v1/{NAME}/predict", {"features": ROW}
        statuses = [node.post(path, json=body, headers=headers).status for headers in given]
    assert statuses == [401, 401, 403, 200]
    (log,) = (desk.settings.home / "logs").glob("access-*.jsonl")
    asked = [json.loads(line) for line in log.read_text().splitlines()]
    answered = [one["caller"] for one in asked if (one["route"], one["status"]) == ("predict", 200)]
    assert answered == ["the-predict"], "the short way names the caller as the long one does"
