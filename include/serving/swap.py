"""Who answers for a use case: what its row says, as far as it is in memory."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from include.deployment.description import Description
from include.records.records import ServingRow
from include.serving.model_states import ModelStates
from include.serving.snapshot import Loaded, Online, Served

if TYPE_CHECKING:
    from include.serving.remote_online import RemoteOnline

ROLES = ("champion", "previous", "challenger")


@dataclass
class Followed:
    """A use case that the node follows: the row as it was read last, and what came of it."""

    row: ServingRow
    use_case: Description
    online: Online | RemoteOnline
    models: ModelStates
    problem: str = ""  # why the row's description is not the one that is used
    lower_since: float = 0.0  # when a lower generation was read first, in the loop's seconds


def snapshot(
    followed: Followed, present: Served | None, taken: Collection[str], problems: Sequence[str]
) -> Served:
    """Return what is served from now on, after `present`; nothing is waited for.

    `taken` are the digests that a rollback of this node has taken back, whatever the row says.
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
        standby = _still_alive(present.answering, taken)
    return Served.of(
        followed.use_case,
        followed.online,
        row.route.generation,
        champion=champion,
        previous=previous,
        standby=standby,
        challenger=challenger,
        problems=(*problems, *([followed.problem] if followed.problem else [])),
    )


def _still_alive(model: Loaded | None, taken: Collection[str]) -> Loaded | None:
    if model is None or model.digest in taken or (model.remote and not model.remote.alive):
        return None
    return model


def describe(served: Served) -> dict[str, Any]:
    """Return what is served, as the answers to those who change it have it."""
    answering = served.answering
    return {
        "use_case": served.use_case.name,
        "generation": served.generation,
        "champion": served.champion.version if served.champion else None,
        "previous": served.previous.version if served.previous else None,
        "answering": answering.version if answering else None,
        "problems": list(served.problems),
    }
