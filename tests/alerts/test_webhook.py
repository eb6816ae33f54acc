"""An alert is sent a few times within a bound, and says its address to nobody."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretStr

from include.alerts.alert import Alert
from include.alerts.webhook import send
from include.errors import ConfigError, Unavailable
from tests.builders.ports import free_ports
from tests.builders.stopwatch import Stopwatch
from tests.builders.webhook_server import WebhookServer, webhook_server

AT = datetime(2026, 3, 2, 8, tzinfo=UTC)
ALERT = Alert("a/1", "release.aborted", "loans", "loans: it was aborted", AT, {"causes": []})
QUICK: dict[str, Any] = {"seconds": 30.0, "pauses": (0.01, 0.01)}


@pytest.fixture
def server() -> Iterator[WebhookServer]:
    with webhook_server() as running:
        yield running


def test_an_alert_is_sent_whole_and_under_its_name(server: WebhookServer) -> None:
    assert send(server.url, ALERT) == 204
    assert server.keys == ["a/1"]
    assert server.taken == [
        {
            "id": "a/1",
            "event": "release.aborted",
            "use_case": "loans",
            "text": "loans: it was aborted",
            "at": "2026-03-02T08:00:00+00:00",
            "details": {"causes": []},
        }
    ]


def test_what_fails_for_a_moment_is_tried_again(server: WebhookServer) -> None:
    server.statuses = [500, 429, 200]
    assert send(server.url, ALERT, **QUICK) == 200
    assert server.keys == ["a/1"] * 3


@pytest.mark.parametrize(("status", "tries"), [(503, 3), (404, 1), (302, 1)])
def test_who_takes_nothing_is_named_and_the_address_is_not_told(
    server: WebhookServer, caplog: pytest.LogCaptureFixture, status: int, tries: int
) -> None:
    server.statuses = [status]
    with pytest.raises(Unavailable, match=f"it answers {status}") as told:
        send(server.url, ALERT, **QUICK)
    assert len(server.taken) == tries
    assert "evergreen heal loans" in str(told.value)
    assert "s3cret" not in str(told.value) + caplog.text


@pytest.mark.parametrize("drips", [True, False])
def test_who_is_slow_is_left_after_the_bound(server: WebhookServer, drips: bool) -> None:
    """A header every moment keeps each read within a time-out of its own: the whole is bounded."""
    server.wait, server.drips = 30.0, drips
    stopwatch = Stopwatch()
    with pytest.raises(Unavailable, match=r"no answer within 0\.5 s"):
        send(server.url, ALERT, **{**QUICK, "seconds": 0.5})
    assert stopwatch.seconds < 10


def test_who_is_away_is_named() -> None:
    url = SecretStr(f"http://127.0.0.1:{free_ports(1)[0]}/s3cret")
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1 has not taken the alert a/1") as told:
        send(url, ALERT, **QUICK)
    assert "s3cret" not in str(told.value)


@pytest.mark.parametrize("url", ["hooks.example.org", "ftp://host/x", "https://", "http://[x"])
def test_an_address_that_is_none_is_refused_by_its_setting(url: str) -> None:
    with pytest.raises(ConfigError, match="EVERGREEN_ALERT_URL is no address"):
        send(SecretStr(url), ALERT, **QUICK)
