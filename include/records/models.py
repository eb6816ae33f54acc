"""The models on record: each version with its state and where its files lie."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from include.errors import Conflict, EvergreenError
from include.records.database import Database
from include.records.schema import ModelRow, insert_missing, locked, plain

Mode = Literal["backfill", "live"]
State = Literal["candidate", "challenger", "released", "retired"]
STATES = ("candidate", "challenger", "released", "retired")
UPDATABLE = ("bundle", "run_id", "bento_tag", "pins", "state", "manifest")


@dataclass(frozen=True)
class Model:
    """A trained model; `generation` is that of the routing row when it was trained."""

    use_case: str
    version: int
    model_digest: str
    partition: str
    as_of: datetime
    mode: str
    feature_set: str
    bundle: str
    run_id: str = ""
    bento_tag: str | None = None
    pins: str | None = None
    state: State = "candidate"
    generation: int = 0
    manifest: dict[str, Any] = dataclasses.field(default_factory=dict)


def add_model(session: Session, model: Model) -> Model:
    """Record a model; the same version with the same digest is a no-op.

    Raises:
        Conflict: the version is another model's.
    """
    if not insert_missing(
        session,
        ModelRow,
        **{field.name: getattr(model, field.name) for field in dataclasses.fields(model)},
    ):
        there = session.get_one(ModelRow, (model.use_case, model.version))
        if there.model_digest != model.model_digest:
            raise Conflict(
                f"{model.use_case} {model.version} is {there.model_digest}, not "
                f"{model.model_digest}; register a new version"
            )
        return plain(Model, there)
    return model


def update_model(
    session: Session, use_case: str, version: int, changes: Mapping[str, Any]
) -> Model:
    """Change what may change about a model: where it lies, its bento, its state."""
    row = locked(session, ModelRow, use_case, version)
    if row is None:
        raise Conflict(f"{use_case} has no model version {version}; train it first")
    for name, value in changes.items():
        if name not in UPDATABLE or (name == "state" and value not in STATES):
            raise EvergreenError(
                f"model {use_case} {version}: {name} = {value!r} cannot be set; only {UPDATABLE}, "
                f"{STATES}"
            )
        setattr(row, name, value)
    session.flush()
    return plain(Model, row)


def models(session: Session, use_case: str) -> list[Model]:
    """Return the models of a use case, by version."""
    statement = select(ModelRow).where(ModelRow.use_case == use_case).order_by(ModelRow.version)
    return [plain(Model, row) for row in session.scalars(statement)]


class Models:
    """The models of all use cases."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, model: Model, *, session: Session | None = None) -> Model:
        """Record a model; raises Conflict if its version is another model's."""
        return self._database.write(lambda open_session: add_model(open_session, model), session)

    def update(
        self, use_case: str, version: int, *, session: Session | None = None, **changes: Any
    ) -> Model:
        """Change a model's bundle, run_id, bento_tag, pins, state or manifest."""
        return self._database.write(
            lambda open_session: update_model(open_session, use_case, version, changes), session
        )

    def get(self, use_case: str, version: int) -> Model | None:
        """Return a model by its version."""
        row = self._database.read(lambda session: session.get(ModelRow, (use_case, version)))
        return None if row is None else plain(Model, row)

    def of(self, use_case: str) -> list[Model]:
        """Return the models of a use case, by version."""
        return self._database.read(lambda session: models(session, use_case))
