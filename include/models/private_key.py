"""The private key that models are signed by: it lies where they are packaged, and nowhere else."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from filelock import FileLock

from include.config.settings import Settings
from include.errors import ConfigError, Conflict
from include.models.public_keys import (
    LOCK_SECONDS,
    PublicKey,
    key_id,
    read_keys,
    retire,
    write_key,
    write_whole,
)


class DamagedKey(ConfigError):
    """A file that is to hold a private key, and holds none."""


@dataclass(frozen=True, slots=True)
class Signer:
    """The private key that signs here, and its name."""

    id: str
    private: Ed25519PrivateKey


def open_signer(settings: Settings, at: datetime) -> Signer:
    """Return the key that signs here; where secrets are generated, one is made on first use.

    Raises:
        ConfigError: there is none, it cannot be read, or its public half is not in the folder.
        Conflict: it expired, was retired or revoked.
    """
    path, folder = settings.signing_key_path, settings.signing_keys_folder
    if not path.exists():
        if not settings.makes_signing_key:
            raise ConfigError(
                f"{path} is missing, the private key that models are signed by: `make "
                "compose-secrets` writes it for containers, `evergreen keys rotate` anywhere else"
            )
        settings.make_home()
        make_pair(path, folder, at=at, days=settings.signing_key_days)
    signer = _read_private(path)
    if signer.id not in read_keys(folder).keys and settings.makes_signing_key:
        _write_public(signer, folder, at=at, days=settings.signing_key_days)
    ring = read_keys(folder)
    remedy = "`evergreen keys rotate` makes another one"
    if signer.id in ring.revoked:
        raise Conflict(f"key {signer.id} in {path} is revoked and signs nothing; {remedy}")
    if signer.id not in ring.keys:
        raise ConfigError(
            f"the public half of the key in {path} ({signer.id}) is not in {folder}, so no node "
            f"would believe it: put {signer.id}.json there, or {remedy}"
        )
    if reason := ring.keys[signer.id].ended_by(at):
        raise Conflict(f"{reason} and signs nothing; {remedy}")
    return signer


def signing_id(settings: Settings) -> str | None:
    """Return the name of the private key that lies here; None: there is none.

    Raises:
        DamagedKey: the file holds none.
        ConfigError: it cannot be read.
    """
    path = settings.signing_key_path
    return _read_private(path).id if path.exists() else None


def make_pair(path: Path, folder: Path, *, at: datetime, days: int) -> Signer:
    """Write a new private key unless there is one, and its public half; return the one there is."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with FileLock(path.with_name(f".{path.name}.lock"), timeout=LOCK_SECONDS, mode=0o600):
        if not path.exists():
            signer = _new_signer()
            # Its public half first: whoever has the private one can sign at once.
            _write_public(signer, folder, at=at, days=days)
            _write_private(path, signer)
        return _read_private(path)


def rotate(settings: Settings, at: datetime) -> tuple[str, str | None]:
    """Put a new key in the place of the one that signs here; return both names.

    The old one signs nothing from now on. What it has signed is believed as before. Killed in
    between it is run again; until then the old one signs, or nothing does. Of a damaged file nobody
    knows which key that was: it is replaced, and no key is ended.

    Raises:
        ConfigError: a folder cannot be written.
    """
    path, folder = settings.signing_key_path, settings.signing_keys_folder
    if settings.makes_signing_key:
        settings.make_home()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=LOCK_SECONDS, mode=0o600):
            old, new = None, _new_signer()
            with contextlib.suppress(DamagedKey):
                old = signing_id(settings)
            _write_public(new, folder, at=at, days=settings.signing_key_days)
            # Ended while its private half still lies here: once that is replaced nobody knows any
            # more that there was one to end.
            if old is not None:
                retire(folder, old, at)
            _write_private(path, new)
    except OSError as error:
        raise ConfigError(
            f"{error.filename or path} cannot be written ({error.strerror}): rotate where the "
            "private key and the public ones are yours to write"
        ) from None
    return new.id, old


def _new_signer() -> Signer:
    return _signer_of(Ed25519PrivateKey.generate())


def _signer_of(private: Ed25519PrivateKey) -> Signer:
    return Signer(key_id(_public_of(private)), private)


def _public_of(private: Ed25519PrivateKey) -> bytes:
    return private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def _read_private(path: Path) -> Signer:
    remedy = "put it back from its copy, or `evergreen keys rotate` makes another one"
    try:
        private = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}); {remedy}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise DamagedKey(f"{path} holds no private key that is plain PEM; {remedy}") from None
    if not isinstance(private, Ed25519PrivateKey):
        raise DamagedKey(f"{path} holds a key of another kind than Ed25519; {remedy}")
    return _signer_of(private)


def _write_private(path: Path, signer: Signer) -> None:
    content = signer.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    write_whole(path, content.decode("ascii"), mode=0o600)


def _write_public(signer: Signer, folder: Path, *, at: datetime, days: int) -> None:
    moment = at.astimezone(UTC).replace(microsecond=0)
    public = _public_of(signer.private)
    write_key(folder, PublicKey(signer.id, public, moment, moment + timedelta(days=days)))
