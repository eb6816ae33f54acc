"""What is signed of a model, by whom, and what is believed.

Signed is a statement: which model of which use case this is, the digests of its bundle, of its
Bento's code and of both with the pins, its feature set, its partition, when it was signed, by which
key, and whether that was at its packaging or at an upgrade. The signature and what no other column
holds stand in the model's row. Whoever loads the model verifies the statement first, and each part
by its digest then.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from cryptography.exceptions import InvalidSignature

from include.config.settings import Settings
from include.errors import ArtefactError, Conflict, EvergreenError
from include.models.private_key import Signer, open_signer
from include.models.public_keys import KeyRing, read_keys, verify_bytes
from include.records.models import Model

SIGNED = "model.signed"  # the audit log's word
BEGUN = "signing.begun"  # once: from then on what is on record unsigned is signed no more
COLUMNS = ("signature", "signing_key", "signed_at", "signed_as")
As = Literal["packaging", "upgrade"]


def statement(model: Model) -> bytes:
    """Return what the signature in a model's row is over, in one form for all machines."""
    content = {
        "statement": "evergreen model 1",
        "use_case": model.use_case,
        "version": model.version,
        "model_digest": model.model_digest,
        "bento_digest": model.bento_digest,
        "artefact_digest": model.artefact_digest,
        "feature_set": model.feature_set,
        "partition": model.partition,
        "key": model.signing_key,
        "signed_at": None if model.signed_at is None else _text(model.signed_at),
        "signed_as": model.signed_as,
    }
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode("ascii")


def sign(model: Model, signer: Signer, *, at: datetime, signed_as: As) -> Model:
    """Return a model with the signature of its statement."""
    moment = at.astimezone(UTC).replace(microsecond=0)
    stated = replace(model, signing_key=signer.id, signed_at=moment, signed_as=signed_as)
    signature = base64.b64encode(signer.private.sign(statement(stated))).decode("ascii")
    return replace(stated, signature=signature)


def sign_here(settings: Settings, model: Model, *, at: datetime, signed_as: As) -> Model:
    """Return a model that is signed by the key of this installation.

    Raises:
        ConfigError: there is no key here, or no node would believe it.
        Conflict: the key has ended.
    """
    return sign(model, open_signer(settings, at), at=at, signed_as=signed_as)


def signed_columns(model: Model) -> dict[str, Any]:
    """Return what a signature changes of a model's row."""
    return {name: getattr(model, name) for name in COLUMNS}


def signed_details(model: Model) -> dict[str, Any]:
    """Return what the audit log says of a signature."""
    return {
        "key": model.signing_key,
        "signed_at": None if model.signed_at is None else _text(model.signed_at),
        "signed_as": model.signed_as,
        "model_digest": model.model_digest,
        "artefact_digest": model.artefact_digest,
        "signature": model.signature,
    }


def verify(model: Model, ring: KeyRing) -> None:
    """Refuse a model that nobody has signed whom the ring knows and does not revoke.

    Of a key that expired or was retired it takes what was signed before.

    Raises:
        ArtefactError: it is unsigned, its key is revoked or unknown or had ended when it signed, or
            the signature is that of another statement.
    """
    name, key, at = f"model {model.version}", model.signing_key or "", model.signed_at
    if model.signature is None or at is None or not key:
        raise ArtefactError(f"{name} is not signed; {_remedy(model)}")
    if key in ring.revoked:
        raise ArtefactError(
            f"{name} is signed by key {key}, which is revoked; if the model itself is sound, "
            f"{_remedy(model)}"
        )
    known = ring.keys.get(key)
    if known is None:
        raise ArtefactError(
            f"{name} is signed by key {key}, which is unknown here; put {key}.json into the folder "
            "of public keys if you trust it"
        )
    if at > known.ended_at():
        raise ArtefactError(
            f"{name} was signed on {_text(at)}, and {known.ended_by(at)} before; {_remedy(model)}"
        )
    try:
        verify_bytes(known, base64.b64decode(model.signature, validate=True), statement(model))
    except (InvalidSignature, binascii.Error, ValueError):
        raise ArtefactError(
            f"{name}: its signature by key {key} is not of what its row says; the row was changed, "
            f"or the signature is another model's. {_remedy(model).capitalize()}"
        ) from None


def verify_by_folder(folder: Path, model: Model) -> None:
    """Verify a model by the keys that lie in a folder now.

    Raises:
        ArtefactError: it is not to be loaded.
        ConfigError: the keys cannot be read; later they may be.
    """
    verify(model, read_keys(folder))


def refuse_release(settings: Settings, model: Model, at: datetime) -> None:
    """Refuse to release a model that is not validly signed, or whose key releases no more.

    Raises:
        Conflict: it is so; the message has the remedy.
        ConfigError: the keys cannot be read.
    """
    ring = read_keys(settings.signing_keys_folder)
    try:
        verify(model, ring)
    except ArtefactError as error:
        raise Conflict(f"{model.use_case} {model.partition}: not released: {error}") from error
    if reason := ring.keys[str(model.signing_key)].ended_by(at):
        raise Conflict(
            f"{model.use_case} {model.partition}: model {model.version} is not released: {reason}, "
            f"and releases nothing new. `evergreen keys rotate` if no other key signs, then "
            f"{_remedy(model)}"
        )


def needs_signature(settings: Settings, model: Model, at: datetime) -> bool:
    """Tell whether a packaged model is to be signed again: nobody would load, or release, it."""
    ring = read_keys(settings.signing_keys_folder)
    try:
        verify(model, ring)
    except EvergreenError:
        return True
    ended = ring.keys[str(model.signing_key)].ended_by(at)
    return bool(ended) and model.state in ("candidate", "challenger")


def _remedy(model: Model) -> str:
    return (
        f"`evergreen run package_model --use-case {model.use_case} --partition "
        f"{model.partition}` signs it"
    )


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")
