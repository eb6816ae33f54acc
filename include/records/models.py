"""Record models: each version with its state and where its files lie."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol, get_args

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from include.errors import Conflict, EvergreenError
from include.records.database import Database
from include.records.rows import insert_missing, locked, plain
from include.records.schema import ModelRow

Mode = Literal["backfill", "live"]
State = Literal["candidate", "challenger", "released", "retired"]
STATES: tuple[str, ...] = get_args(State)
UPDATABLE = (
    "bundle",
    "run_id",
    "bento_tag",
    "bento_digest",
    "pins",
    "state",
    "manifest",
    "artefact_digest",
    "collected_at",
    "bundle_uri",
    "reference_uri",
    "bento_uri",
    "signature",
    "signing_key",
    "signed_at",
    "signed_as",
)


@dataclass(frozen=True)
class Model:
    """A trained model; `generation` is that of the routing row when it was trained.

    `artefact_digest` is over all that runs when it answers (`include.models.artefact`).
    `collected_at` is when its files were given up; only its row is left then. What ends in `uri` is
    an address in the store (`include.artefacts.address`), `bundle` the path of the machine that
    trained it, which nodes of the version before read. `signature` is of a statement that
    `include.models.signing` makes of the row.
    """

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
    bento_digest: str | None = None
    artefact_digest: str | None = None
    collected_at: datetime | None = None
    bundle_uri: str | None = None
    reference_uri: str | None = None
    bento_uri: str | None = None
    signature: str | None = None
    signing_key: str | None = None
    signed_at: datetime | None = None
    signed_as: str | None = None


class Releasable(Protocol):
    """What decides whether a version could serve again."""

    @property
    def version(self) -> int: ...
    @property
    def model_digest(self) -> str: ...
    @property
    def state(self) -> str: ...
    @property
    def collected_at(self) -> datetime | None: ...


class Models:
    """The models of all use cases."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, model: Model, *, session: Session | None = None) -> Model:
        """Record a model; of the same version with the same digest only where its files are.

        Its files are there now: an equal model of its partition whose files had been collected is
        whole again, since both have one bundle.

        Raises:
            Conflict: the version is another model's.
        """

        def work(open_session: Session) -> Model:
            values = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
            _mark_whole(open_session, model)
            if insert_missing(open_session, ModelRow, **values):
                return model
            row = open_session.get_one(ModelRow, (model.use_case, model.version))
            if row.model_digest != model.model_digest:
                raise Conflict(
                    f"{model.use_case} {model.version} is {row.model_digest}, not "
                    f"{model.model_digest}; register a new version"
                )
            _move(row, model)
            open_session.flush()
            return plain(Model, row)

        return self._database.write(work, session)

    def update(
        self, use_case: str, version: int, *, session: Session | None = None, **changes: Any
    ) -> Model:
        """Change what is UPDATABLE of a model.

        Raises:
            Conflict: there is no such version.
            EvergreenError: something else was to be changed, or to another state.
        """

        def work(open_session: Session) -> Model:
            row = locked(open_session, ModelRow, use_case, version)
            if row is None:
                raise Conflict(f"{use_case} has no model version {version}; train it first")
            for name, value in changes.items():
                if name not in UPDATABLE or (name == "state" and value not in STATES):
                    raise EvergreenError(
                        f"model {use_case} {version}: {name} = {value!r} cannot be set; only "
                        f"{UPDATABLE}, {STATES}"
                    )
                setattr(row, name, value)
            open_session.flush()
            return plain(Model, row)

        return self._database.write(work, session)

    def get(self, use_case: str, version: int) -> Model | None:
        """Return a model by its version."""
        row = self._database.read(lambda session: session.get(ModelRow, (use_case, version)))
        return None if row is None else plain(Model, row)

    def without_artefact(self) -> list[Model]:
        """Return the packaged models of all use cases whose artefact has no digest on record.

        One whose files were collected has no artefact.
        """
        rows = select(ModelRow).where(
            ModelRow.bento_tag.is_not(None),
            ModelRow.artefact_digest.is_(None),
            ModelRow.collected_at.is_(None),
        )
        order = rows.order_by(ModelRow.use_case, ModelRow.version)
        return self._database.read(
            lambda session: [plain(Model, row) for row in session.scalars(order)]
        )

    def without_address(self) -> list[Model]:
        """Return the models of all use cases whose bundle has no address that names its content.

        One whose files were collected has none.
        """
        rows = select(ModelRow).where(
            or_(ModelRow.bundle_uri.is_(None), ModelRow.bundle_uri.like("store:models/%")),
            ModelRow.collected_at.is_(None),
        )
        order = rows.order_by(ModelRow.use_case, ModelRow.version)
        return self._database.read(
            lambda session: [plain(Model, row) for row in session.scalars(order)]
        )

    def without_signature(self) -> list[Model]:
        """Return the unsigned models of all use cases that may serve, or could be released.

        One whose files were collected cannot, nor one that was never packaged or released.
        """
        rows = select(ModelRow).where(
            ModelRow.signature.is_(None),
            ModelRow.collected_at.is_(None),
            or_(ModelRow.bento_tag.is_not(None), ModelRow.state.in_(("challenger", "released"))),
        )
        order = rows.order_by(ModelRow.use_case, ModelRow.version)
        return self._database.read(
            lambda session: [plain(Model, row) for row in session.scalars(order)]
        )

    def of(self, use_case: str) -> list[Model]:
        """Return the models of a use case, by version."""
        return self._database.read(lambda session: models_of(session, use_case))


def _mark_whole(session: Session, model: Model) -> None:
    """Take the mark of collected files off the rows of a partition's model.

    They have one bundle, which is now where the new model says.
    """
    rows = select(ModelRow).where(
        ModelRow.use_case == model.use_case,
        ModelRow.partition == model.partition,
        ModelRow.model_digest == model.model_digest,
        ModelRow.collected_at.is_not(None),
    )
    for row in session.scalars(rows.with_for_update()):
        row.collected_at = None
        _move(row, model)
    session.flush()


def _move(row: ModelRow, model: Model) -> None:
    """Record where the files of a model are now, if that is known by address."""
    if model.bundle_uri is not None:
        row.bundle, row.bundle_uri = model.bundle, model.bundle_uri
        row.reference_uri = model.reference_uri


def models_of(session: Session, use_case: str) -> list[Model]:
    """Return the models of a use case, by version, as a transaction sees them."""
    statement = select(ModelRow).where(ModelRow.use_case == use_case).order_by(ModelRow.version)
    return [plain(Model, row) for row in session.scalars(statement)]


def last_good(
    models: Iterable[Releasable], held: Collection[str], champion: int | None
) -> int | None:
    """Return the newest version, other than the champion, that could serve again.

    It was released, never taken back, and its files are there.
    """
    good = (
        model.version
        for model in models
        if model.state == "released"
        and model.model_digest not in held
        and model.collected_at is None
        and model.version != champion
    )
    return max(good, default=None)
