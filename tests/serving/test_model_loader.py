"""The models that a node holds: tried, loaded in the right process, and ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from include.errors import ArtefactError
from include.serving import model_loader
from include.serving.model_loader import ModelLoader
from tests.builders.isolated import write_bento
from tests.builders.serving import ROW, Desk

pytestmark = pytest.mark.anyio
OTHER_PINS = "sha256:of another installation"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(tmp_path_factory.mktemp("loader"))


class Calls:
    """Counts what a loader calls back."""

    def __init__(self) -> None:
        self.changed = self.loaded = 0

    def on_change(self) -> None:
        self.changed += 1

    def on_load(self) -> None:
        self.loaded += 1


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
async def loader(desk: Desk, calls: Calls) -> AsyncIterator[ModelLoader]:
    loader = ModelLoader(desk.settings.home, changed=calls.on_change, loaded=calls.on_load)
    yield loader
    loader.close()


async def test_a_model_of_the_nodes_own_pins_is_tried_and_loaded_into_it(
    desk: Desk, loader: ModelLoader, calls: Calls
) -> None:
    model = desk.train(1)
    await loader.load(model)
    loaded = loader.get(1)
    assert loaded is not None
    assert (loaded.remote, loaded.digest) == (None, model.model_digest)
    assert loaded.scorer is not None
    assert 0 < loaded.scorer.one(ROW) < 1
    await loader.load(model)
    assert loader.get(1) is loaded
    assert (calls.changed, calls.loaded) == (1, 1)


async def test_another_model_runs_as_its_bento_and_is_ended_when_nobody_needs_it(
    desk: Desk, loader: ModelLoader, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_loader, "LINGER_SECONDS", 0.1)
    tag = write_bento(desk.settings.home)
    await loader.load(desk.train(2, pins=OTHER_PINS, bento_tag=tag))
    loaded = loader.get(2)
    assert loaded is not None
    assert (loaded.scorer, calls.loaded) == (None, 1)
    assert loaded.remote is not None
    assert await loaded.remote.ask(ROW) == 0.25
    loader.keep([1])
    assert loader.get(2) is None
    assert await loaded.remote.ask(ROW) == 0.25  # for requests in hand
    async with asyncio.timeout(10):
        while loaded.remote.alive:
            await asyncio.sleep(0.02)


async def test_a_process_that_ended_is_started_again(
    desk: Desk, loader: ModelLoader, calls: Calls
) -> None:
    model = desk.train(3, pins=OTHER_PINS, bento_tag=write_bento(desk.settings.home))
    await loader.load(model)
    first = loader.get(3)
    assert first is not None
    assert first.remote is not None
    first.remote.close()
    async with asyncio.timeout(10):
        while first.remote.alive or not calls.changed:
            await asyncio.sleep(0.02)
    await loader.load(model)
    second = loader.get(3)
    assert second is not None
    assert second is not first
    assert second.remote is not None
    assert second.remote.alive


async def test_another_model_without_a_bento_names_the_way_out(
    desk: Desk, loader: ModelLoader
) -> None:
    with pytest.raises(ArtefactError, match="package it again"):
        await loader.load(desk.train(4, pins=OTHER_PINS))
    assert loader.get(4) is None


async def test_a_trial_fails_once_until_it_is_asked_for_again(
    desk: Desk, loader: ModelLoader, calls: Calls
) -> None:
    model = desk.train(5)
    (Path(model.bundle) / "golden.json").unlink()
    with pytest.raises(ArtefactError):
        await loader.verified_trial(model)
    home = desk.settings.home
    tag = write_bento(home, "loans_scorer:broken", first='say({"error": "it is broken"})')
    other = desk.train(6, pins=OTHER_PINS, bento_tag=tag)
    for _ in range(2):
        with pytest.raises(ArtefactError, match="it is broken"):
            await (await loader.verified_trial(other))
    assert calls.changed == 1
    write_bento(home, tag)
    loader.try_again(failed_only=True)
    await (await loader.verified_trial(other))
    await asyncio.sleep(0)
    assert calls.changed == 2
