"""The page of releases: from the records of a started node, in a browser, and without records."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from msgspec.structs import replace as with_fields

from include.clock import utc_now, wait_for
from include.records.records import AuditEntry
from include.serving import releases_page
from include.serving.releases_page import ReleaseLook, Views, render
from include.serving.snapshot import Served, ServedRelease
from tests.builders.application import Client
from tests.builders.browser import browser
from tests.builders.releases import request
from tests.builders.releasing import Releasing
from tests.builders.serving import NAME, Desk
from tests.builders.stopwatch import Stopwatch
from tests.deployment.test_release_view import VERDICT
from tests.serving.test_docs_page import Reader

RELEASE = ServedRelease("a" * 12, 1, "canary", 500, bytes(16))


def entry() -> AuditEntry:
    return AuditEntry("test", NAME, "2", "anna", {"reason": "christmas"}, utc_now())


def test_a_started_node_shows_what_the_records_say(tmp_path: Path) -> None:
    desk = Desk(tmp_path / "home")
    for version in (1, 2, 3):
        desk.train(version)
    desk.record_route(champion=1)
    aborted = Releasing(desk, 2, 0, 500)
    aborted.abort()
    releasing = Releasing(desk, 3, 0, 500, 2500)
    releasing.begin()
    releasing.advance()
    releases = desk.records.releases
    releasing.release = releases.note(releasing.release, VERDICT, entry())
    request(desk.records, 4, "2026-03-04", use_case=NAME, waits=True)
    releases.freeze(NAME, datetime(2100, 1, 1, tzinfo=UTC), entry())
    with desk.node() as node, browser(tmp_path / "profile") as page:
        withheld = "has heard no beat"
        assert wait_for(
            lambda: withheld in httpx.get(f"{node.url}/releases", timeout=60).text,
            seconds=60,
            every=0.2,
        )
        page.open(f"{node.url}/releases")
        page.shows("Evidence of this step")
        text = page.run("document.body.innerText")
        for words in (
            "Model 1 is champion.",
            "5 %",
            "Model 3 of 2026-03-01",
            "hold 3 of 10 requests",
            "3 errors: model_late",
            "No release starts until 2100",
            "by anna: christmas",
            "Model 4 of 2026-03-04, since",
            "asked",
            "nothing is given to the challenger: this node has heard no beat",
        ):
            assert words in text, text
        assert page.messages == [], "no script, nothing from elsewhere"
        for width in (1200, 380):
            page._call(
                "Emulation.setDeviceMetricsOverride",
                width=width,
                height=900,
                deviceScaleFactor=1,
                mobile=False,
            )
            widest = page.run("document.documentElement.scrollWidth")
            assert widest <= width, "nothing is beyond the edge"
            if folder := os.environ.get("EVERGREEN_TEST_PICTURES"):
                page.picture(Path(folder) / f"releases-{width}.png")
        docs = httpx.get(f"{node.url}/docs", timeout=60).text
        assert "A release is under way: nothing is given to the challenger" in docs


def test_without_records_it_says_what_the_node_knows(client: Client) -> None:
    client.serve(release=RELEASE)
    page = client.ask("GET", "/releases")
    assert page.headers["content-security-policy"].startswith("default-src 'none'; style-src")
    assert "The records do not answer" in page.text
    assert "5 % of the entities are the challenger&#39;s" in page.text
    assert Reader(page.text.replace("<meta", "<meta ")).open == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"mode": "shadow", "share": 0}, "requests are mirrored"),
        ({"why": "the guard"}, "nothing is given to the challenger: the guard"),
        ({"state": "watched", "mode": None, "share": 0}, "is champion here"),
        ({"state": "trying", "mode": None, "share": 0}, "is tried, and gets no request"),
        (None, "no release that this node takes part in"),
    ],
)
def test_what_the_node_does_has_words(
    client: Client, changes: dict[str, object] | None, words: str
) -> None:
    release = None if changes is None else replace(RELEASE, **changes)  # type: ignore[arg-type]
    page = render({NAME: Served(client.use_case, release=release)}, {}, utc_now())
    assert words in page


def test_a_name_is_text_not_markup(client: Client) -> None:
    use_case = with_fields(client.use_case, title="<script>alert(1)</script>")
    page = Reader(render({NAME: Served(use_case)}, {}, utc_now()))
    assert "script" not in page.tags
    assert "No use case is served yet." in render({}, {}, utc_now())


@pytest.mark.anyio
async def test_records_that_hang_are_asked_once_and_waited_for_a_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(releases_page, "LOOK_SECONDS", 0.1)
    asked, answer = 0, asyncio.Event()

    async def read(names: Sequence[str]) -> Views:
        nonlocal asked
        asked += 1
        await answer.wait()
        return {}

    look = ReleaseLook(read)
    stopwatch = Stopwatch()
    assert await asyncio.gather(*[look.views([NAME]) for _ in range(20)]) == [{}] * 20
    assert (asked, stopwatch.seconds < 5) == (1, True)
    answer.set()
    assert await look.views([NAME]) == {}
    assert asked == 1


@pytest.mark.anyio
async def test_records_that_refuse_are_said_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def read(names: Sequence[str]) -> Views:
        raise OSError("the disk is gone")

    assert await ReleaseLook(read).views([NAME]) == {}
    assert "the disk is gone" in caplog.text
