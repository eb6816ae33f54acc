"""The models of one use case that a node holds.

Each is tried in a child process before it is loaded: a damaged model file may kill its process, and
this must not be the node's. A model whose serving pins are those of this node is loaded into it;
another one runs as its Bento, in a process of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from include.errors import ArtefactError
from include.models import bundle
from include.models.loading import load_model
from include.models.pins import fits_here
from include.models.trial import trial_load
from include.records.records import Model
from include.serving.isolated_model import IsolatedModel
from include.serving.snapshot import Loaded

TRIAL_SECONDS = 60.0
LINGER_SECONDS = 5.0  # after which a model that was swapped out is ended


class ModelLoader:
    """Tries, loads and ends models.

    All its state belongs to the event loop; only what waits is done in threads.
    """

    def __init__(
        self, home: Path, *, changed: Callable[[], None], loaded: Callable[[], object]
    ) -> None:
        """Build it.

        `changed` is called when a trial or a model's process has ended, `loaded` after each load.
        """
        self._home, self._changed, self._on_load = home, changed, loaded
        self._loaded: dict[int, Loaded] = {}
        self._trials: dict[str, asyncio.Task[None]] = {}

    def get(self, version: int) -> Loaded | None:
        """Return a model that is loaded, dead or alive."""
        return self._loaded.get(version)

    async def verified_trial(self, model: Model) -> asyncio.Task[None]:
        """Verify a model's files and return its trial, started once a digest; nobody waits for it.

        Raises:
            ArtefactError: its files are not the recorded ones.
        """
        await asyncio.to_thread(bundle.verify_bundle, model.bundle, model.model_digest)
        return self._trial(model)

    async def load(self, model: Model) -> None:
        """Have a model loaded, after its trial.

        Raises:
            ArtefactError: it did not answer its golden rows, or its Bento is not there.
        """
        present = self._loaded.get(model.version)
        if present is not None and present.digest == model.model_digest and _alive(present):
            return
        loaded = Loaded(model.version, model.model_digest, model.feature_set, model.partition)
        if fits_here(model.pins):
            await self._trial(model)
            scorer = await asyncio.to_thread(load_model, model.bundle, model.model_digest)
            loaded = replace(loaded, scorer=scorer)
        else:
            isolated = await self._isolated(model)
            isolated.on_end = self._changed
            loaded = replace(loaded, remote=isolated)
        self._loaded[model.version] = loaded
        self._on_load()

    def keep(self, versions: Collection[int]) -> None:
        """End all other models, a little later: requests in hand may still use them."""
        for version in self._loaded.keys() - set(versions):
            asyncio.get_running_loop().call_later(LINGER_SECONDS, _end, self._loaded.pop(version))

    def try_again(self, *, failed_only: bool) -> None:
        """Forget trials, so that the next look starts them anew."""
        self._trials = {
            digest: task
            for digest, task in self._trials.items()
            if failed_only and not _failed(task)
        }

    def close(self) -> None:
        """End all models' processes."""
        for model in self._loaded.values():
            _end(model)

    def _trial(self, model: Model) -> asyncio.Task[None]:
        """Return the trial of a model's digest, started if there was none; it is not repeated."""
        trial = self._trials.get(model.model_digest)
        if trial is None:
            trial = asyncio.create_task(self._try(model))
            trial.add_done_callback(lambda _: self._changed())
            self._trials[model.model_digest] = trial
        return trial

    async def _try(self, model: Model) -> None:
        if fits_here(model.pins):
            await asyncio.to_thread(
                trial_load, model.bundle, model.model_digest, timeout=TRIAL_SECONDS
            )
        else:
            (await self._isolated(model)).close()

    async def _isolated(self, model: Model) -> IsolatedModel:
        if model.bento_tag is None:
            raise ArtefactError(
                f"model {model.version} has other serving pins than this node and no bento; "
                "package it again"
            )
        return await IsolatedModel.start(
            self._home, model.bento_tag, model.bundle, model.model_digest, seconds=TRIAL_SECONDS
        )


def _failed(task: asyncio.Task[None]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is not None


def _alive(model: Loaded) -> bool:
    return model.remote is None or model.remote.alive


def _end(model: Loaded) -> None:
    if model.remote is not None:
        model.remote.close()
