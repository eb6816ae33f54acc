"""What a change of the routing row is refused for: another state, an older release, a bad model."""

from __future__ import annotations

from enum import Enum

from sqlalchemy.orm import Session

from include.errors import Conflict
from include.records.probation_rows import is_found
from include.records.rows import locked
from include.records.schema import ModelRow, RouteRow


class Unset(Enum):
    """The value of an expectation that is not stated (None states that there is none)."""

    UNSET = "unset"


UNSET = Unset.UNSET


def expect_state(row: RouteRow, generation: int | None, champion: int | Unset | None) -> None:
    """Refuse a change that was decided on another state of the routing row.

    Raises:
        Conflict: generation or champion are others.
    """
    if generation is not None and generation != row.generation:
        raise Conflict(
            f"{row.use_case}: the routing row is at generation {row.generation}, not "
            f"{generation}: look, then rerun"
        )
    if not isinstance(champion, Unset) and champion != row.champion:
        raise Conflict(
            f"{row.use_case}: the champion is {row.champion}, not {champion}; judge the candidate "
            "again"
        )


def expect_no_newer_release(row: RouteRow, partition: str | None) -> None:
    """Refuse a release from a partition that is older than what was ever released.

    Raises:
        Conflict: it is older.
    """
    if partition is not None and row.watermark is not None and partition < row.watermark:
        raise Conflict(
            f"{row.use_case}: partition {partition} is older than {row.watermark}, which is live; "
            "release a newer one"
        )


def expect_judged_since_rollback(row: RouteRow, judged_generation: int | None) -> None:
    """Refuse a release that was judged before the last rollback.

    Raises:
        Conflict: it was.
    """
    if judged_generation is not None and judged_generation < row.rollback_generation:
        raise Conflict(
            f"{row.use_case}: judged in generation {judged_generation}, before the rollback of "
            f"generation {row.rollback_generation}; judge again"
        )


def admit(session: Session, row: RouteRow, version: int) -> None:
    """Refuse a model that may not serve.

    The previous champion may come back, however long before the last rollback it was trained.

    Raises:
        Conflict: it is not on record, its files are gone, it is on hold, not good, or older than a
            rollback.
    """
    # Locked: a collection of its files, while the use case has no routing row yet, locks only this.
    model = locked(session, ModelRow, row.use_case, version)
    if model is None:
        raise Conflict(
            f"{row.use_case}: there is no model version {version} on record; train it first"
        )
    if model.collected_at is not None:
        raise Conflict(
            f"{row.use_case}: the files of version {version} were collected on "
            f"{model.collected_at:%Y-%m-%d}; `evergreen run train_model --use-case "
            f"{row.use_case} --partition {model.partition}` makes them again"
        )
    if model.model_digest in row.held:
        raise Conflict(
            f"{row.use_case}: version {version} ({model.model_digest}) was rolled back and is on "
            f"hold; `evergreen rollback {row.use_case} --release {model.model_digest}` lifts that"
        )
    if is_found(session, row.use_case, model.model_digest, "not_good"):
        raise Conflict(
            f"{row.use_case}: version {version} was found not good on probation; train a new "
            "candidate"
        )
    if version != row.previous and model.generation < row.rollback_generation:
        raise Conflict(
            f"{row.use_case}: version {version} was trained in generation {model.generation}, "
            f"before the rollback of generation {row.rollback_generation}; train a new candidate"
        )
