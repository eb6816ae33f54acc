"""Who answers for a use case: what its row says, as far as it is in memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from include.config.settings import Settings
from include.deployment.description import Description
from include.features.online_stores import online_path
from include.records.epochs import FIRST
from include.records.records import Model, ServingRow
from include.serving.model_states import ModelStates
from include.serving.release_watch import ReleaseWatch
from include.serving.snapshot import Loaded, Online, Served, ServedRelease

if TYPE_CHECKING:
    from include.serving.remote_online import RemoteOnline

log = logging.getLogger(__name__)

STALE_SECONDS = 1.0  # for so long a row of an earlier state may be one that was read before
ROLES = ("champion", "previous", "challenger")


@dataclass
class Followed:
    """A use case that the node follows: the row as it was read last, and what came of it."""

    row: ServingRow
    use_case: Description
    online: Online | RemoteOnline
    models: ModelStates
    problem: str = ""  # why the row's description is not the one that is used
    epoch: int = FIRST  # of the records that the row was read from
    lower_since: float = 0.0  # when an earlier state was read first, in the loop's seconds
    watch: ReleaseWatch = field(default_factory=lambda: ReleaseWatch(""))

    def is_behind(self, epoch: int, generation: int) -> bool:
        """Tell whether a row that was read is of an earlier state than the one that is followed.

        A restore begins an epoch: its row is newer, whatever generation it has gone back to.
        """
        return (epoch, generation) < (self.epoch, self.row.route.generation)

    def stays_lower(self, now: float) -> bool:
        """Tell whether what was read has been of an earlier state for a while; `now` as above.

        A reset, with a release after it, begins to count again, and so does a database whose file
        was replaced by hand. But so looks what another look read just before `take_route` brought
        the newer row: that is gone with the next look.
        """
        if not self.lower_since:
            self.lower_since = now
        elif now - self.lower_since >= STALE_SECONDS:
            self.lower_since = 0.0
            return True
        return False


def open_online(
    settings: Settings, use_case: str, count: Callable[[str, str], object]
) -> Online | RemoteOnline:
    """Open the store of a use case's online features that the settings name.

    `count` is told the use case and what happened.
    """
    if not settings.online_url.get_secret_value():
        return Online(online_path(settings, use_case))
    # Imported here: the client of Redis takes its time.
    from include.serving.remote_online import RemoteOnline

    return RemoteOnline(settings, use_case, count=lambda event: count(use_case, event))


def snapshot(
    followed: Followed,
    present: Served | None,
    taken: Collection[str],
    problems: Sequence[str],
    revoked: Collection[str] = (),
) -> Served:
    """Return what is served from now on, after `present`; nothing is waited for.

    `taken` are the digests that a rollback of this node has taken back, whatever the row says;
    `revoked` the keys whose signatures are not believed any more.
    """
    row = followed.row
    champion, previous, challenger = (
        candidate.alive
        if (candidate := followed.models.get(row.model(role)))
        and candidate.model.model_digest not in taken
        else None
        for role in ROLES
    )
    if (bad := row.model("champion")) is not None and bad.model_digest in taken:
        champion, previous = previous, None  # a rollback that the row does not know yet
    standby = None
    if champion is None and previous is None and present is not None:
        standby = _still_alive(present.answering, {*taken, *followed.models.of_keys(revoked)})
    return Served.of(
        followed.use_case,
        followed.online,
        row.route.generation,
        epoch=followed.epoch,
        champion=champion,
        previous=previous,
        standby=standby,
        challenger=challenger,
        problems=(*problems, *([followed.problem] if followed.problem else [])),
        release=released(followed, taken),
    )


def released(followed: Followed, taken: Collection[str]) -> ServedRelease | None:
    """Return the release that a use case is in, as this node takes part in it."""
    # With the records there a rollback ends a release that is under way, whichever arm it is of.
    taken_back = any(
        model is not None and model.model_digest in taken
        for model in map(followed.row.model, ROLES)
    )
    candidate = followed.models.get(followed.row.model("challenger"))
    is_tried = candidate is not None and candidate.was_ready
    return followed.watch.released(followed.row, is_tried=is_tried, taken_back=taken_back)


def _still_alive(model: Loaded | None, taken: Collection[str]) -> Loaded | None:
    if model is None or model.digest in taken or (model.remote and not model.remote.alive):
        return None
    return model


def way_back(
    followed: Followed, served: Served | None, taken: Collection[str]
) -> tuple[Model | None, Model | None, int]:
    """Return the champion that is served, the one before it if it is in memory, and the generation
    of the row.
    """
    row = followed.row
    bad, good = row.model("champion"), row.model("previous")
    if bad is not None and bad.model_digest in taken:
        return good, None, row.route.generation  # a second step back, which is not in memory
    candidate = followed.models.get(good)
    if served is None or candidate is None or candidate.alive is None:
        good = None
    if bad is not None and good is not None and good.model_digest == bad.model_digest:
        good = None  # the same model under another version
    return bad, good, row.route.generation


def log_swap(present: Served | None, served: Served) -> None:
    """Log who answers from now on, where that is another one than before."""
    new, old = served.answering, present.answering if present else None
    if new is None or new is old:
        return
    role = "champion" if new is served.champion else "fallback"
    log.info(
        "%s: model %d answers as %s (generation %d)",
        served.use_case.name,
        new.version,
        role,
        served.generation,
    )


def describe(served: Served) -> dict[str, Any]:
    """Return what is served, as the answers to those who change it have it."""
    answering = served.answering
    return {
        "use_case": served.use_case.name,
        "epoch": served.epoch,
        "generation": served.generation,
        "champion": served.champion.version if served.champion else None,
        "previous": served.previous.version if served.previous else None,
        "answering": answering.version if answering else None,
        "problems": list(served.problems),
    }
