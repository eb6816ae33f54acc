"""Take over models of versions before: from paths of this machine into the store, and sign them."""

from __future__ import annotations

import logging
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from include.artefacts.address import BUNDLES, REFERENCES
from include.artefacts.store import ArtefactStore
from include.config.settings import Settings
from include.errors import ArtefactError, EvergreenError, Unavailable
from include.models.artefact import verify_row
from include.models.bundle import verify_bundle
from include.models.presence import find_bundle, is_away
from include.models.private_key import Signer, open_signer
from include.models.signing import BEGUN, SIGNED, sign, signed_columns, signed_details
from include.records.records import AuditEntry, Model, Records

log = logging.getLogger(__name__)

REFERENCE = "reference.parquet"
TOLD = 3  # models that stay unsigned that are named: of an old installation they may be hundreds


def adopt_addresses(settings: Settings, records: Records) -> list[str]:
    """Put the models that are recorded by a path into the store, and record their addresses.

    Once, where the path means something: on the machine of the home. What cannot be read or is not
    the recorded one stays as it is, as does all where this process may not write. Returns the
    models, as `use_case version`.
    """
    store, adopted, untold = ArtefactStore.of(settings), list[str](), True
    for model in records.models.without_address():
        try:
            _adopt(store, records, model)
        except Unavailable as error:
            # A store or a database that does not answer is no model that is gone. Said once: it is
            # the same for the next ones.
            if untold:
                log.warning("models stay recorded by a path, first %d: %s", model.version, error)
            untold = False
            continue
        except (EvergreenError, OSError) as error:
            # The files of most are simply gone: nothing has needed them for long.
            log.debug("%s: model %d stays a path: %s", model.use_case, model.version, error)
            continue
        adopted.append(f"{model.use_case} {model.version}")
    if adopted:
        log.info("the addresses of %d models are now on record", len(adopted))
    return adopted


def _adopt(store: ArtefactStore, records: Records, model: Model) -> None:
    folder = Path(find_bundle(store, model))
    # The very bytes that were verified: files that change meanwhile change nothing.
    files = verify_bundle(folder, model.model_digest)
    uri = store.put(BUNDLES, model.use_case, files)
    reference = folder.parent / REFERENCE
    changes: dict[str, Any] = {"bundle_uri": uri}
    if reference.is_file():
        changes["reference_uri"] = store.put(REFERENCES, model.use_case, {REFERENCE: reference})
    if store.is_local:  # nodes of the version before read the path
        changes["bundle"] = str(store.get(uri))
    records.models.update(model.use_case, model.version, **changes)


def adopt_signatures(
    settings: Settings, records: Records, *, at: datetime, makes_key: bool = True
) -> list[str]:
    """Sign the models that a version before left unsigned, as far as their digests vouch for them.

    Once: from the first signature on, whoever can write to the records alone must not get a model
    signed by a restart. Returns the models, as `use_case version`. Without `makes_key` nothing is
    signed where no key lies yet: a node's machine is to have none.

    Raises:
        ConfigError: the key that lies here cannot be used.
        Conflict: it has ended.
    """
    unsigned = records.models.without_signature()
    if not unsigned or records.audit.entries(action=BEGUN, limit=1):
        return []
    may_make = makes_key and settings.makes_signing_key
    if not settings.signing_key_path.exists() and not may_make:
        log.warning(
            "%d models of the version before are not signed, so no node serves them: run "
            "`evergreen migrate` where the private key lies",
            len(unsigned),
        )
        return []
    signer, store = open_signer(settings, at), ArtefactStore.of(settings)
    signed, away, left = list[str](), 0, list[str]()
    for model in unsigned:
        try:
            _vouch(store, model)
        except (EvergreenError, OSError) as error:
            away += isinstance(error, Unavailable)
            left.append(f"{model.use_case}: model {model.version} is not signed: {error}")
            continue
        _sign(records, model, signer, at)
        signed.append(f"{model.use_case} {model.version}")
    for line in left[:TOLD]:
        log.warning("%s", line)
    if len(left) > TOLD:
        log.warning("the same is true of %d more models", len(left) - TOLD)
    if not away:  # what could not be read is tried again with the next start
        details = {"signed": len(signed)}
        records.audit.append(AuditEntry(BEGUN, "", signer.id, "upgrade", details, at, once=BEGUN))
    log.info("%d models of the version before are signed by key %s", len(signed), signer.id)
    return signed


def _vouch(store: ArtefactStore, model: Model) -> None:
    """Verify all of a model that its row has digests of.

    Raises:
        ArtefactError: it is not the recorded one.
        Unavailable: its files are not there at the moment.
    """
    verify_row(model)
    folder = find_bundle(store, model)
    try:
        verify_bundle(folder, model.model_digest)
    except ArtefactError as error:
        if is_away(folder):
            raise Unavailable(str(error)) from error
        raise


def _sign(records: Records, model: Model, signer: Signer, at: datetime) -> None:
    signed = sign(model, signer, at=at, signed_as="upgrade")
    details = signed_details(signed)
    once = f"{SIGNED} {model.use_case} {model.version} {signed.signature}"
    entry = AuditEntry(
        SIGNED, model.use_case, str(model.version), "upgrade", details, at, once=once
    )

    def write(session: Session) -> None:
        records.models.update(
            model.use_case, model.version, session=session, **signed_columns(signed)
        )
        records.audit.append(entry, session=session)

    records.write(write)
