"""Examine the keys that models are signed by: which signs, until when, and what serves unsigned."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from include.doctor.databases import address_of, connected
from include.doctor.findings import Finding, Patient, Subject, first_line
from include.errors import ArtefactError
from include.models.private_key import signing_id
from include.models.public_keys import KeyRing, read_keys
from include.models.signing import verify
from include.records.models import Model
from include.records.rows import plain
from include.records.schema import ModelRow, RouteRow

WARNED = timedelta(days=30)  # before a key ends
_ROTATE = "`evergreen keys rotate` where the private key lies makes another one"


def examine(patient: Patient) -> Iterator[Finding]:
    """Look at the private key if it lies here, at the public ones, and at what serves by them."""
    subject, settings = Subject("keys"), patient.settings
    ring = read_keys(settings.signing_keys_folder)
    here = signing_id(settings)
    if not ring.keys and here is None:
        yield subject.ok("signing", "none is made yet; the first packaging makes one")
    elif here is not None and here not in ring.keys:
        found = f"the public half of {here} is not in {settings.signing_keys_folder}"
        yield subject.fail("signing", found, f"put {here}.json there, or {_ROTATE}")
    else:
        yield _ends(subject, ring, here, patient)
    if ring.revoked:
        yield subject.ok("revoked", ", ".join(sorted(ring.revoked)))
    yield from _serving(subject, ring, patient)


def _ends(subject: Subject, ring: KeyRing, here: str | None, patient: Patient) -> Finding:
    """Return until when the key of here signs; where none is, the one that signs for longest."""
    now = patient.now()
    believed = [key for key in ring.keys.values() if key.id not in ring.revoked]
    if here is not None:
        if here in ring.revoked:
            return subject.fail("signing", f"{here}, which signs here, is revoked", _ROTATE)
        believed = [ring.keys[here]]
    if not believed:
        return subject.fail("signing", "every key is revoked", _ROTATE)
    key = max(believed, key=lambda one: one.ended_at())
    where = "signs here" if here is not None else "signs elsewhere"
    if reason := key.ended_by(now):
        return subject.fail("signing", f"{reason}: nothing new is packaged or released", _ROTATE)
    told = f"{key.id} {where} until {key.ended_at():%Y-%m-%d}"
    if key.ended_at() - now < WARNED:
        return subject.warn("signing", told, _ROTATE)
    return subject.ok("signing", told)


def _serving(subject: Subject, ring: KeyRing, patient: Patient) -> Iterator[Finding]:
    url = address_of(patient.settings.records_address)
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists():
        return
    try:
        with connected(url, patient.seconds) as connection, Session(connection) as session:
            models = [
                (role, plain(Model, row))
                for role in ("champion", "previous")
                for row in session.scalars(
                    select(ModelRow)
                    .join(RouteRow, RouteRow.use_case == ModelRow.use_case)
                    .where(getattr(RouteRow, role) == ModelRow.version)
                    .order_by(ModelRow.use_case)
                )
            ]
    except Exception as error:  # noqa: BLE001 - that the records are away is told by their own check
        yield subject.warn("serving", first_line(error), "see the finding about the records")
        return
    refused = 0
    for role, model in models:
        try:
            verify(model, ring)
        except ArtefactError as error:
            refused += 1
            thing = f"{model.use_case} {model.version}"
            kind = subject.fail if role == "champion" else subject.warn
            text, _, remedy = str(error).partition("; ")
            yield kind(thing, f"{role}: {text}", remedy or "package it again")
    if models and not refused:
        yield subject.ok("serving", f"{len(models)} models that serve or may, all validly signed")
