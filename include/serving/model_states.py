"""The models of one use case that a node has, or is about to have: a state machine a version.

    wanted ─► verified ─► tried ─► loaded          on the way: nobody waits for it
       ▲         │          │         │
       │         └────┬─────┴─────────┘
       │              ├─► refused      for good: its signature or digest, or its golden rows
       └── pause ─────┴─► could not    a time-out, a signal, files that are away: tried again

Each version has a task of its own. A model whose serving pins are those of this node is tried in a
child process and loaded into this one; another one runs as its Bento, in a process of its own.

A challenger runs in a process of its own whatever its pins are, as its Bento, or where it has none,
by this node's own code: what it does there cannot hurt the node. Once it is champion it is loaded
like any other, and its process answers until that is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from include.artefacts.store import ArtefactStore
from include.errors import ArtefactError, Unavailable
from include.models import bundle
from include.models.artefact import verify_row
from include.models.bento_archive import have_bento
from include.models.loading import load_model
from include.models.pins import fits_here
from include.models.presence import find_bundle, is_away
from include.records.records import Model
from include.serving import trials
from include.serving.golden_rows import ask_golden
from include.serving.isolated_model import IsolatedModel
from include.serving.loops import pause_after
from include.serving.snapshot import Loaded, feature_types
from include.serving.workers import Workers

log = logging.getLogger(__name__)

LINGER_SECONDS = 5.0  # after which a model that nobody needs any more is ended
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0  # seconds until what could not be done is tried again
State = Literal["wanted", "verified", "tried", "loaded", "refused", "could_not"]
# The roles that answer come first; a version in two of them counts as the first.
ROLES = ("champion", "previous", "challenger")
_Key = tuple[int, str]


@dataclass
class Candidate:
    """One version on its way into memory; `next_try` is in the loop's seconds.

    `fit` says that it has passed what only a challenger is asked: whether its features are online.
    """

    model: Model
    role: str
    state: State = "wanted"
    reason: str = ""
    failures: int = 0
    next_try: float = 0.0
    fit: bool = False
    loaded: Loaded | None = None
    task: asyncio.Task[None] | None = None
    again: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def alive(self) -> Loaded | None:
        """The model, if it can be asked."""
        model = self.loaded
        return None if model is None or (model.remote and not model.remote.alive) else model

    @property
    def was_ready(self) -> bool:
        """Whether it could be asked once: if it cannot now, that is its own failure."""
        return self.loaded is not None and (self.role != "challenger" or self.fit)

    @property
    def is_placed(self) -> bool:
        """Whether it runs where its role has it run: in this process or in one of its own."""
        model = self.loaded
        return model is not None and (model.remote is not None) == self.runs_apart

    @property
    def runs_apart(self) -> bool:
        """Whether it is to run in a process of its own."""
        return self.role == "challenger" or not fits_here(self.model.pins)

    @property
    def is_ready(self) -> bool:
        """Whether all that its role asks of it is done."""
        return self.alive is not None and self.is_placed and (self.role != "challenger" or self.fit)


class ModelStates:
    """All versions of one use case that somebody wants.

    All its state belongs to the event loop; `changed` is called on it after each step.
    """

    def __init__(
        self,
        store: ArtefactStore,
        workers: Workers,
        verify: Callable[[Model], None],
        *,
        changed: Callable[[], object],
        loaded: Callable[[], object] = lambda: None,
        check: Callable[[Loaded], Awaitable[None]] | None = None,
    ) -> None:
        """Build it.

        `verify` raises an ArtefactError for a model whose signature is not believed, in a thread.
        `loaded` is called after each load. `check` is what a challenger must pass beside its golden
        rows; it raises an error of ours.
        """
        self._store, self._workers, self._verify = store, workers, verify
        self._changed, self._on_load, self._check = changed, loaded, check
        self._candidates: dict[_Key, Candidate] = {}

    def want(self, models: Mapping[str, Model], also: Collection[int] = ()) -> None:
        """Say which models are wanted, by role; all others are ended, those in `also` not yet."""
        wanted: dict[_Key, tuple[str, Model]] = {}
        for role in ROLES:
            if (model := models.get(role)) is not None:
                wanted.setdefault((model.version, model.model_digest), (role, model))
        for key in [key for key in self._candidates if key not in wanted and key[0] not in also]:
            self._end(self._candidates.pop(key))
        for key, (role, model) in wanted.items():
            candidate = self._candidates.get(key)
            if candidate is None:
                candidate = self._candidates[key] = Candidate(model, role)
            if candidate.state == "refused" and candidate.model != model:
                candidate.state, candidate.reason = "wanted", ""  # what was refused is no more
            # Of the row of today: a bundle may have been moved, a Bento made anew.
            candidate.model, candidate.role = model, role
            self._start(candidate)

    def get(self, model: Model | None) -> Candidate | None:
        """Return how far a model is, or None if it is not wanted."""
        return None if model is None else self._candidates.get((model.version, model.model_digest))

    @property
    def models(self) -> list[Model]:
        """All models that are wanted, or not ended yet."""
        return [candidate.model for candidate in self._candidates.values()]

    def try_again(self, *, refused: bool) -> None:
        """Try at once what could not be done before; with `refused` also what was refused."""
        for candidate in self._candidates.values():
            if candidate.state == "could_not":
                candidate.again.set()
            elif refused and candidate.state == "refused":
                candidate.state, candidate.reason = "wanted", ""
                self._start(candidate)

    def refuse_keys(self, revoked: Collection[str]) -> None:
        """End at once what was signed by a key that is revoked, whether it answers or not."""
        for candidate in list(self._candidates.values()):
            is_in_hand = candidate.state != "refused" or candidate.loaded is not None
            if is_in_hand and candidate.model.signing_key in revoked:
                self._end(candidate)
                candidate.task = candidate.loaded = None
                key = candidate.model.signing_key
                self._fail(candidate, "refused", ArtefactError(f"its key {key} is revoked"))

    def of_keys(self, revoked: Collection[str]) -> frozenset[str]:
        """Return the digests of the models that were signed by one of these keys."""
        models = [candidate.model for candidate in self._candidates.values()]
        return frozenset(one.model_digest for one in models if one.signing_key in revoked)

    def close(self) -> None:
        """End all tasks and processes."""
        for candidate in self._candidates.values():
            _stop(candidate)
        self._candidates.clear()

    def _start(self, candidate: Candidate) -> None:
        is_running = candidate.task is not None and not candidate.task.done()
        if not is_running and candidate.state != "refused" and not candidate.is_ready:
            candidate.task = asyncio.create_task(self._bring_in(candidate))

    async def _bring_in(self, candidate: Candidate) -> None:
        """Take a version through its states until it is loaded or refused."""
        while not candidate.is_ready:
            try:
                await self._take_steps(candidate)
            except ArtefactError as error:
                self._fail(candidate, "refused", error)
                return
            except Exception as error:  # noqa: BLE001 - no failure may leave it without a next try
                candidate.failures += 1
                pause = pause_after(candidate.failures, first=FIRST_PAUSE, longest=LONGEST_PAUSE)
                candidate.next_try = asyncio.get_running_loop().time() + pause
                candidate.again.clear()
                self._fail(candidate, "could_not", error)
                try:
                    async with asyncio.timeout(pause):
                        await candidate.again.wait()
                except TimeoutError:
                    pass

    async def _take_steps(self, candidate: Candidate) -> None:
        if candidate.alive is None or not candidate.is_placed:
            self._step(candidate, "wanted")
            loaded = await self._load(candidate)
            # A process may have ended while its golden rows were compared.
            if loaded.remote is not None:
                loaded.remote.on_end = lambda: self._ended(candidate)
            before, candidate.loaded = candidate.loaded, loaded
            _close_later(before)  # who answered until now; requests in hand may still use it
            self._on_load()
        if candidate.role == "challenger" and not candidate.fit and candidate.alive is not None:
            if self._check is not None:
                await self._check(candidate.alive)
            candidate.fit = True
        if candidate.alive is None:
            raise Unavailable(f"model {candidate.model.version}: its process has ended")
        candidate.failures, candidate.reason = 0, ""
        self._step(candidate, "loaded")

    async def _load(self, candidate: Candidate) -> Loaded:
        """Verify, try and load a model.

        Raises:
            ArtefactError: it is not the recorded one, or not the model that it was.
            Unavailable: that could not be found out.
        """
        model = candidate.model
        kind = "trial" if candidate.role == "challenger" else "serving"
        # Who signed it comes first: of what nobody vouches for nothing is read.
        await self._workers.run(kind, self._verify, model)
        verify_row(model)
        folder = await self._workers.run(kind, find_bundle, self._store, model)
        model = replace(model, bundle=folder)
        try:
            files = await self._workers.run(
                kind, bundle.verify_bundle, model.bundle, model.model_digest
            )
        except ArtefactError as error:
            if await self._workers.run(kind, is_away, model.bundle):
                raise Unavailable(str(error)) from error
            raise
        self._step(candidate, "verified")
        loaded = Loaded(
            model.version,
            model.model_digest,
            model.feature_set,
            model.partition,
            types=feature_types(files[bundle.SCHEMA]),
        )
        turn = self._workers.trial_turn if kind == "trial" else contextlib.nullcontext()
        fits = fits_here(model.pins)
        if fits:
            async with turn:
                await trials.try_model(
                    model.bundle, model.model_digest, model.pins, seconds=trials.SECONDS
                )
        if not candidate.runs_apart:
            self._step(candidate, "tried")
            scorer = await self._workers.run(kind, load_model, model.bundle, model.model_digest)
            return replace(loaded, scorer=scorer)
        async with turn:
            remote = await self._start_process(model, kind, own_code=fits)
            try:
                await ask_golden(remote, files[bundle.GOLDEN])
            except BaseException:
                remote.close()
                raise
        self._step(candidate, "tried")
        return replace(loaded, remote=remote)

    async def _start_process(self, model: Model, kind: str, *, own_code: bool) -> IsolatedModel:
        if own_code and model.bento_tag is None:
            return await IsolatedModel.start_own(
                self._store.home, model.bundle, model.model_digest, seconds=trials.SECONDS
            )
        if model.bento_tag is None:
            raise ArtefactError(
                f"model {model.version} has other serving pins than this node and no bento; "
                "package it again"
            )
        await self._workers.run(kind, have_bento, self._store, model)
        # Without the digest of the whole nobody has vouched for what would run.
        code_digest = None if model.artefact_digest is None else model.bento_digest
        return await IsolatedModel.start(
            self._store.home,
            model.bento_tag,
            model.bundle,
            model.model_digest,
            seconds=trials.SECONDS,
            code_digest=code_digest,
        )

    def _ended(self, candidate: Candidate) -> None:
        """Start the process of a model again, later with each time that it ends."""
        if self._candidates.get((candidate.model.version, candidate.model.model_digest)):
            self._changed()  # whoever stands behind it answers at once
            self._start(candidate)

    def _step(self, candidate: Candidate, state: State) -> None:
        candidate.state = state
        self._changed()

    def _fail(self, candidate: Candidate, state: State, error: Exception) -> None:
        candidate.reason = str(error) or type(error).__name__
        log.error(
            "%s: model %d (%s) is not loaded, %s: %s",
            candidate.model.use_case,
            candidate.model.version,
            candidate.role,
            "refused" if state == "refused" else "tried again later",
            candidate.reason,
        )
        self._step(candidate, state)

    def _end(self, candidate: Candidate) -> None:
        """End a model a little later: requests in hand may still use it."""
        if candidate.task is not None:
            candidate.task.cancel()
        _close_later(candidate.loaded)


def _close_later(model: Loaded | None) -> None:
    if model is not None and model.remote is not None:
        model.remote.on_end = lambda: None
        asyncio.get_running_loop().call_later(LINGER_SECONDS, model.remote.close)


def _stop(candidate: Candidate) -> None:
    if candidate.task is not None:
        candidate.task.cancel()
    if candidate.loaded is not None and candidate.loaded.remote is not None:
        candidate.loaded.remote.close()
