"""What a node serves: one immutable snapshot a use case, swapped whole by the reconciler."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, Protocol

from include.deployment.description import Description
from include.features.online_reader import OnlineReader
from include.features.online_rows import OnlineSet, Value
from include.records.epochs import FIRST
from include.serving.assignment import PAIRS, Arm, Assignment

if TYPE_CHECKING:  # the client of Redis takes its time to be imported
    from include.serving.child_link import Done
    from include.serving.remote_online import RemoteOnline


class OnlineRows(Protocol):
    """What tells the online features of an entity, without a wait."""

    is_remote: ClassVar[Literal[False]]

    def describe(self, feature_set: str) -> OnlineSet | None:
        """Return what is online of a feature set, or None."""

    def get(self, feature_set: str, entity: str) -> tuple[int, list[Value]] | None:
        """Return the event time (microseconds since 1970) and the values of an entity, or None."""


# So old may a row be that is answered after a newer one was published. Each read would take the
# locks of the file by itself otherwise, which takes longer than the read.
HOLD_SECONDS = 0.01


class Online:
    """The online store of one use case in SQLite; read on the event loop.

    The description of a feature set is read once and kept until `refresh`. Where reads come one
    after the other, they share one state of the file for `HOLD_SECONDS`.
    """

    is_remote: ClassVar[Literal[False]] = False

    def __init__(self, path: Path) -> None:
        self._reader = OnlineReader(path)
        self._sets: dict[str, OnlineSet] = {}
        self._inode = 0
        self._state: object = None
        self._end: asyncio.TimerHandle | None = None  # of what is held

    def hold(self) -> object:
        """Let the reads of the next moment share one state; call it on the event loop.

        Returns the state: what was read in it holds as long as it is this very object.
        """
        if self._end is None:
            state = self._reader.hold()
            if state is not self._state:
                self._state = state
                self._sets.clear()
            self._end = asyncio.get_running_loop().call_later(HOLD_SECONDS, self._release)
        return self._state

    def _release(self) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None
        self._reader.release()

    def describe(self, feature_set: str) -> OnlineSet | None:
        """Return what is online of a feature set, or None."""
        online_set = self._sets.get(feature_set)
        if online_set is None:
            online_set = self._reader.describe(feature_set)
            if online_set is not None:
                self._sets[feature_set] = online_set
        return online_set

    def get(self, feature_set: str, entity: str) -> tuple[int, list[Value]] | None:
        """Return the event time (microseconds since 1970) and the values of an entity, or None."""
        return self._reader.get(feature_set, entity)

    def refresh(self) -> None:
        """Forget what was read of the feature sets; open the file again if it was replaced.

        A file that is away, or whose successor cannot be read, is read on by the open connection:
        what cannot be read is not gone.
        """
        self._release()  # or what is described next would be of the state that is held
        self._sets.clear()
        try:
            inode = self._reader.path.stat().st_ino
        except OSError:
            return
        if inode == self._inode:
            return
        # An open connection would go on reading the file that was replaced.
        successor = OnlineReader(self._reader.path)
        if self._inode and not successor.is_readable():
            successor.close()
            return
        self._reader.close()
        self._reader, self._inode = successor, inode

    def close(self) -> None:
        """Close the file."""
        self._release()
        self._reader.close()


def feature_types(schema: bytes) -> dict[str, str]:
    """Return the types of a model's features, as its schema.json has them."""
    features: list[dict[str, str]] = json.loads(schema).get("features", [])
    return {one["name"]: one["type"] for one in features if "type" in one}


class Scorer(Protocol):
    """A model that answers rows in this process."""

    @property
    def features(self) -> list[str]:
        """The features that a row must hold."""

    def one(self, row: Mapping[str, object]) -> float:
        """Return the probability of a row."""


class RemoteScore(NamedTuple):
    """The probability of a row, and how many microseconds the model took; None: it is not told."""

    value: float
    micros: int | None


class RemoteScorer(Protocol):
    """A model in a process of its own; it answers within its deadline or raises.

    `on_end` is called when the process ends by itself.
    """

    on_end: Callable[[], None]

    @property
    def features(self) -> list[str]:
        """The features that a row must hold."""

    @property
    def alive(self) -> bool:
        """Whether it can still be asked."""

    async def ask(self, row: Mapping[str, object], *, seconds: float | None = None) -> RemoteScore:
        """Return the probability of a row; the question waits for its turn.

        `seconds` is its deadline, where that is another one than the usual.
        """

    def post(self, row: bytes, done: Done, seconds: float) -> bool:
        """Ask for the score of a row as JSON; tell whether it was asked.

        `done` is told the reply, or why there is none, within so many seconds.
        """

    def close(self) -> None:
        """End the process."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that is ready to answer; exactly one of `scorer` and `remote` is set."""

    version: int
    digest: str
    feature_set: str
    partition: str
    scorer: Scorer | None = None
    remote: RemoteScorer | None = None
    types: Mapping[str, str] = field(default_factory=dict)  # of its features, by its own schema


@dataclass(frozen=True, slots=True)
class ServedRelease:
    """The release under way that a node takes part in, at one of its steps.

    `share` is in basis points, `mode` None while the nodes only try the model. `is_active` is False
    while the judge is not heard, the release is suspended, this node's guard is latched or its rows
    are those of the last time: the share is 0 then, and nothing is mirrored. `key` is the release's
    secret, by which entities are assigned; those in `exclude` stay with the champion. A model that
    takes longer than `slow_us` is slow; `availability` is the share of good answers that its plan
    promises. `state` is that of the records, `why` says what keeps an active step from being one
    here. `places` remembers whom it has assigned. `pairs`, in basis points, is the part of the
    entities that both models score in a step with a share; `sample` has their places.
    """

    id: str
    step: int
    mode: Literal["shadow", "canary"] | None
    share: int
    key: bytes
    exclude: frozenset[str] = frozenset()
    slow_us: int = 80_000
    availability: float = 0.999
    is_active: bool = True
    state: str = "running"
    why: str = ""
    places: Assignment = field(default_factory=lambda: Assignment(b""), compare=False)
    pairs: int = 0
    sample: Assignment = field(
        default_factory=lambda: Assignment(b"", purpose=PAIRS), compare=False
    )

    def assign(self, entity: int | str | None, row: bytes = b"") -> Arm:
        """Return the arm that a request is meant for: by its entity, else by its row's bytes."""
        if not self.share:
            return "champion"
        places = self.places
        place = places.place_of_row(row) if entity is None else places.place(entity)
        return "challenger" if place < self.share else "champion"

    def describe(self) -> dict[str, object]:
        """Return it as the health page has it; the share is in percent, the secret stays."""
        told: dict[str, object] = {
            "id": self.id,
            "state": self.state,
            "step": self.step,
            "mode": self.mode,
            "share": self.share / 100,
        }
        return told | ({"withheld": self.why} if self.why else {})


@dataclass(frozen=True, slots=True)
class Served:
    """Everything that a request needs of its use case.

    It is taken once at the start of a request: what is logged is what was used, whatever is swapped
    in meanwhile. `champion` is the one that the routing row names, None while it is not in memory;
    `previous` answers for it then, or where that is missing too, `standby`: who answered before.
    `problems` are what keeps the node from serving all that the routing row says.
    """

    use_case: Description
    online: OnlineRows | RemoteOnline | None = None
    generation: int = 0
    champion: Loaded | None = None
    previous: Loaded | None = None
    problems: tuple[str, ...] = field(default=())
    standby: Loaded | None = None
    challenger: Loaded | None = None
    # What a row may hold; the champion's own types go before those of today's use case, which may
    # have renamed or removed what it reads.
    row_types: Mapping[str, str] = field(default_factory=dict)
    epoch: int = FIRST  # of the records that the generation was read from
    release: ServedRelease | None = None  # None: no release is under way

    @classmethod
    def of(
        cls,
        use_case: Description,
        online: OnlineRows | RemoteOnline,
        generation: int,
        *,
        epoch: int = FIRST,
        champion: Loaded | None,
        previous: Loaded | None,
        standby: Loaded | None,
        challenger: Loaded | None,
        problems: tuple[str, ...],
        release: ServedRelease | None = None,
    ) -> Served:
        """Return the snapshot of a use case, with the types of all that its rows may hold."""
        types = dict(use_case.feature_types)
        for model in (challenger, standby, previous, champion):
            if model is not None:
                types |= model.types
        return cls(
            use_case,
            online,
            generation,
            champion,
            previous,
            problems,
            standby,
            challenger,
            types,
            epoch,
            release,
        )

    @property
    def feature_types(self) -> Mapping[str, str]:
        """The features that a row may hold, with their types."""
        return self.row_types or self.use_case.feature_types

    @property
    def fallback(self) -> Loaded | None:
        """Who answers where the champion does not."""
        return self.previous or self.standby

    @property
    def answering(self) -> Loaded | None:
        """Who answers now."""
        return self.champion or self.fallback
