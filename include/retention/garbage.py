"""What a collection looks at, and what it finds: the nouns that its parts share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, NamedTuple

from include.artefacts.store import ArtefactStore
from include.config.settings import Settings
from include.config.use_case import UseCase
from include.errors import Busy
from include.records.records import Records
from include.retention.marks import Version

GRACE = timedelta(hours=48)  # what is younger stays, whoever has made it
Kind = Literal["models", "packages", "copies", "mlflow", "lake", "predictions", "windows"]
# Stages that read or write the files of models: while one is at work, none is removed.
USERS = (
    "train_model",
    "evaluate_model",
    "package_model",
    "deploy_model",
    "check_drift",
    "scores",
)


class Garbage(NamedTuple):
    """Something that nothing needs: `remove` removes it and tells whether it is gone.

    `version` is the model's, where it belongs to one that is collected now.
    """

    kind: Kind
    name: str
    bytes: int
    why: str
    remove: Callable[[], bool]
    version: int | None = None


@dataclass(frozen=True)
class Place:
    """A use case of an installation at the moment `at`; `owner` claims the leases."""

    settings: Settings
    records: Records
    use_case: UseCase
    at: datetime
    owner: str

    @property
    def store(self) -> ArtefactStore:
        """The artefacts of the installation."""
        return ArtefactStore.of(self.settings)

    @property
    def name(self) -> str:
        """Name of the use case."""
        return self.use_case.name

    def is_old(self, seconds: float) -> bool:
        """Tell whether something of this age may go."""
        return seconds > GRACE.total_seconds()

    def at_work(self) -> str | None:
        """Return who uses the files of models now, or None."""
        holders = [
            holder
            for holder in self.records.leases.holders(self.name)
            if holder.lost is None and holder.stage in USERS and holder.owner != self.owner
        ]
        return f"{holders[0].stage} {holders[0].key} is at work" if holders else None

    @contextmanager
    def training_kept_out(self, key: str) -> Iterator[bool]:
        """Hold the training of a partition off; give whether nobody is at it.

        A training that comes later finds the files gone, and writes them again.
        """
        try:
            lease = self.records.leases.claim(
                self.name,
                "train_model",
                key,
                owner=self.owner,
                attempt=1,
                ttl=self.settings.lease_seconds,
            )
        except Busy:
            yield False
            return
        with lease:
            yield True


def whole(versions: Sequence[Version], gone: frozenset[int] = frozenset()) -> list[Version]:
    """Return the versions whose files are to stay: without those in `gone`, and collected ones."""
    return [each for each in versions if each.collected_at is None and each.version not in gone]
