"""Record what the serving nodes must know: as a person asked, or at an upgrade."""

from __future__ import annotations

import logging

from sqlalchemy.orm import Session

from include.clock import utc_now
from include.config import use_case_file
from include.config.settings import Settings
from include.config.use_case import UseCase
from include.deployment.description import Description
from include.errors import ArtefactError, ConfigError
from include.models.artefact import artefact_digest
from include.models.bento_sources import read_vouched, sources_digest
from include.records.records import AuditEntry, Model, Records, Route

log = logging.getLogger(__name__)

APPLIED = "use_case.applied"
VOUCHED = "model.artefact_recorded"
WARNED = 3  # models of which nobody vouches that are named


def apply_use_case(records: Records, use_case: UseCase, actor: str, reason: str) -> Route:
    """Record a use case's description in its routing row; equal to what is there, it is a no-op.

    Raises:
        Conflict: the row has moved on since it was read.
    """
    route, plain = records.routes.get(use_case.name), Description.of(use_case).plain()
    if route.description == plain:
        return route
    return records.routes.change(
        use_case.name,
        set={"description": plain},
        entry=AuditEntry(
            APPLIED, use_case.name, use_case.name, actor, {"reason": reason}, utc_now()
        ),
        expect_generation=route.generation,
    )


def adopt_use_cases(settings: Settings, records: Records) -> list[str]:
    """Record the description of every use case whose row was written by a version without one.

    It is taken from its file, once: before a node starts that reads rows alone. Returns the names.

    Raises:
        ConfigError: a file cannot be read; it is named, and nothing of it is recorded.
    """
    adopted = []
    for name in records.routes.without_description():
        try:
            use_case = use_case_file.find(name, settings.usecase_dirs)
        except ConfigError as error:
            folders = ", ".join(str(folder / f"{name}.yaml") for folder in settings.usecase_dirs)
            raise ConfigError(
                f"{name} is served, and what a node must know of it is not on record yet; it is "
                f"taken from its file ({folders}), which cannot be read: {error}. Mend the file; "
                f"or, if the use case is to go, `evergreen reset {name}`"
            ) from None
        apply_use_case(records, use_case, "upgrade", "taken from its file, once")
        log.info("%s: what a node must know of it is now on record", name)
        adopted.append(name)
    return adopted


def adopt_artefacts(settings: Settings, records: Records) -> list[str]:
    """Record the digests of artefacts that a version packaged which recorded none.

    Once, before a node starts that runs no code without one. The receipt of the packaging vouches
    for the code: what it does not name, or names otherwise, gets no digest, and is only warned of.
    Returns the models, as `use_case version`.
    """
    adopted, left = list[str](), 0
    for model in records.models.without_artefact():
        try:
            _adopt(settings, records, model)
        except (ArtefactError, OSError) as error:
            left += 1
            if left <= WARNED:  # of an old installation they may be hundreds, at each start
                log.warning(
                    "%s: model %d may run in this node alone, not by its bento: %s",
                    model.use_case,
                    model.version,
                    error,
                )
            continue
        adopted.append(f"{model.use_case} {model.version}")
    if left > WARNED:
        log.warning("the same is true of %d more models", left - WARNED)
    if adopted:
        log.info("the digests of %d artefacts are now on record", len(adopted))
    return adopted


def _adopt(settings: Settings, records: Records, model: Model) -> None:
    if model.bento_tag is None or model.pins is None:
        raise ArtefactError("it has no pins on record; package the model again")
    code = model.bento_digest
    if code is None:
        code = sources_digest(read_vouched(settings.home, model.use_case, model.bento_tag))
    digest = artefact_digest(model.model_digest, code, model.pins)
    details = {"bento_tag": model.bento_tag, "bento_digest": code, "artefact_digest": digest}
    entry = AuditEntry(
        VOUCHED,
        model.use_case,
        str(model.version),
        "upgrade",
        details,
        utc_now(),
        once=f"{VOUCHED} {model.use_case} {model.version} {digest}",
    )

    def vouch(session: Session) -> None:
        records.models.update(
            model.use_case,
            model.version,
            session=session,
            bento_digest=code,
            artefact_digest=digest,
        )
        records.audit.append(entry, session=session)

    records.write(vouch)
