"""What a serving node must know of a use case: recorded with its routing row, read from there.

A node reads no use case file: a file that somebody is just editing, or that is away for a moment,
changes nothing that is served. Nothing heavy is imported here.
"""

from __future__ import annotations

from datetime import date, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from include.errors import ConfigError
from include.point_in_time.expiry import Calendar

if TYPE_CHECKING:
    from include.config.use_case import UseCase


class EntityKey(msgspec.Struct, frozen=True):
    """Whom a score is about: its name, the column of its key and the key's type."""

    name: str
    key: str
    type: str


class ServedView(msgspec.Struct, frozen=True):
    """A feature view: its columns with their types, its ttl in seconds.

    `online` says that its rows are kept online; those of another one come with the request.
    """

    columns: dict[str, str]
    ttl: float
    online: bool = True


class Decision(msgspec.Struct, frozen=True):
    """The threshold, and what is decided on either side of it."""

    threshold: float
    at_or_above: str
    below: str


class Fallback(msgspec.Struct, frozen=True):
    """What is answered of an unknown entity, of stale features, and while the store is away.

    Each is refuse or score.
    """

    unknown: str
    stale: str
    store: str = "refuse"


class LogRules(msgspec.Struct, frozen=True):
    """What the prediction log holds: `pii` features are cut out, an entity may be hashed.

    Below `floor` bytes of free disk it is `when_full`: stop or flag.
    """

    pii: list[str] = []
    hashes_entity: bool = False
    when_full: str = "stop"
    floor: int = 500_000_000


class Description(msgspec.Struct, frozen=True, dict=True):
    """A use case as a node knows it; `cut_off` is in seconds.

    `online_share` is of how many of the entities alive a challenger's features must be online.

    What a later version adds gets a default: rows of before are read as they are, and a node of
    before passes over what it does not know.
    """

    name: str
    title: str
    entity: EntityKey
    features: dict[str, ServedView]
    trained: list[str]
    decision: Decision
    fallback: Fallback
    cadence: str
    cut_off: float
    first: date
    last: date | None = None
    online_share: float = 0.95
    log: LogRules = LogRules()

    @classmethod
    def of(cls, use_case: UseCase) -> Description:
        """Return the description of a use case as its file has it now."""
        from include.features.pii import pii_features
        from include.features.visibility import visibility_of

        return cls(
            name=use_case.name,
            title=use_case.title,
            entity=EntityKey(use_case.entity.name, use_case.entity.key, use_case.entity.type),
            features={
                name: ServedView(
                    dict(view.columns),
                    view.ttl.total_seconds(),
                    visibility_of(use_case, name) != "with_request",
                )
                for name, view in use_case.features.items()
            },
            trained=use_case.trained_features,
            decision=Decision(
                use_case.decision.threshold, use_case.decision.at_or_above, use_case.decision.below
            ),
            fallback=Fallback(
                use_case.fallback.unknown, use_case.fallback.stale, use_case.fallback.store
            ),
            cadence=use_case.cadence,
            cut_off=use_case.cut_off.total_seconds(),
            first=use_case.history.first,
            last=use_case.history.last,
            online_share=use_case.release.online_share,
            log=LogRules(
                pii_features(use_case),
                use_case.hashes_entity,
                use_case.log.when_full,
                use_case.log.floor_bytes,
            ),
        )

    @classmethod
    def read(cls, use_case: str, plain: object) -> Description:
        """Return the description that a routing row holds.

        Raises:
            ConfigError: it is none that this version can read.
        """
        try:
            return msgspec.convert(plain, cls)
        except msgspec.ValidationError as error:
            raise ConfigError(
                f"{use_case}: the description in its routing row cannot be read ({error}); write "
                f"it anew by `evergreen usecase apply {use_case}`"
            ) from None

    def plain(self) -> dict[str, Any]:
        """Return it as a routing row keeps it."""
        builtins: dict[str, Any] = msgspec.to_builtins(self)
        return builtins

    @cached_property
    def feature_types(self) -> dict[str, str]:
        """All features, in order of the views, with their types."""
        return {
            name: kind for view in self.features.values() for name, kind in view.columns.items()
        }

    @property
    def calendar(self) -> Calendar:
        """When its partitions end."""
        return Calendar(self.cadence, timedelta(seconds=self.cut_off), self.first, self.last)
