"""The public keys that nodes believe, in a folder, and the list of those that are revoked.

A file `KEY.json` each, named by the digest of the key; beside them lies the list `revoked`: of
whoever is named there nothing is believed any more. All of it is read again whenever a model is
loaded or released, so that a running node follows what a person changes there. A folder that has
keys and no list is not believed: with a list that was taken away nobody would be revoked.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from filelock import FileLock

from include.errors import ConfigError
from include.files import written_aside

log = logging.getLogger(__name__)

REVOKED = "revoked"
LOCK_SECONDS = 10.0
_FORMAT = 1
_ID = re.compile(r"[0-9a-f]{32}")
_HEADER = "# Keys whose signatures are not believed any more: KEY, then when, by whom and why.\n"


@dataclass(frozen=True, slots=True)
class PublicKey:
    """One public key; it signs from `made_at` until it expires or is retired by its successor."""

    id: str
    public: bytes
    made_at: datetime
    expires_at: datetime
    retired_at: datetime | None = None

    def ended_at(self) -> datetime:
        """Return the moment from which nothing is signed by it, or released, any more."""
        return min(self.expires_at, self.retired_at or self.expires_at)

    def ended_by(self, at: datetime) -> str:
        """Return why it signs nothing at a moment any more; "": it does."""
        if at < self.ended_at():
            return ""
        what = "expired" if self.ended_at() == self.expires_at else "was retired"
        return f"key {self.id} {what} on {self.ended_at():%Y-%m-%d %H:%M} UTC"


@dataclass(frozen=True, slots=True)
class KeyRing:
    """All keys that a folder holds, and those that are revoked, with what is said of it."""

    keys: Mapping[str, PublicKey] = field(default_factory=dict)
    revoked: Mapping[str, str] = field(default_factory=dict)

    def find(self, prefix: str) -> str:
        """Return the one key whose name begins so.

        Raises:
            ConfigError: there is none, or more than one.
        """
        if not prefix.strip():
            raise ConfigError("name the key; `evergreen keys list` shows all")
        found = [name for name in self.keys.keys() | self.revoked.keys() if name.startswith(prefix)]
        if len(found) != 1:
            raise ConfigError(
                f"{len(found) or 'no'} keys begin with {prefix!r}; `evergreen keys list` shows all"
            )
        return found[0]


def key_id(public: bytes) -> str:
    """Return the name of a public key: the beginning of its digest."""
    return hashlib.sha256(b"evergreen key\0" + public).hexdigest()[:32]


def is_public_file(name: str) -> bool:
    """Tell whether a file of a folder of public keys is one of ours, by its name."""
    return name == REVOKED or (name.endswith(".json") and bool(_ID.fullmatch(name[:-5])))


def read_keys(folder: Path) -> KeyRing:
    """Return the keys of a folder; what is no key of ours is passed over, so it signs nothing.

    Raises:
        ConfigError: the list of revoked keys is missing, malformed or cannot be read.
    """
    keys = {}
    try:
        paths = sorted(folder.glob("*.json"))
        for path in paths:
            key = _read_key(path)
            if key is not None:
                keys[key.id] = key
        return KeyRing(keys, _read_revoked(folder / REVOKED, needed=bool(keys)))
    except OSError as error:
        raise ConfigError(
            f"the public keys in {folder} cannot be read ({error.strerror}): give them to user "
            f"{os.getuid()}"
        ) from None


def _read_key(path: Path) -> PublicKey | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        public = base64.b64decode(content["public"], validate=True)
        if content["format"] != _FORMAT or len(public) != 32 or path.stem != key_id(public):
            raise ValueError("another key than its name says")
        retired = content.get("retired_at")
        return PublicKey(
            path.stem,
            public,
            _moment(content["made_at"]),
            _moment(content["expires_at"]),
            None if retired is None else _moment(retired),
        )
    # Overflow: a time before the year 1; recursion: brackets without end.
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        log.warning("%s is no public key and is passed over: %s", path, error)
        return None


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text} has no time zone")
    return moment.astimezone(UTC)


def _read_revoked(path: Path, *, needed: bool) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        if needed:
            raise ConfigError(
                f"the list of revoked keys, {path}, is missing, so no key beside it is believed: "
                "put it back from a copy, or make an empty file if none was ever revoked"
            ) from None
        return {}
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is no text; put the list of revoked keys back") from None
    revoked = {}
    for number, line in enumerate(lines, 1):
        name, _, told = line.strip().partition(" ")
        if name and not name.startswith("#"):
            if not _ID.fullmatch(name):
                raise ConfigError(f"{path}, line {number}: {name[:40]!r} is no key; mend the line")
            revoked[name] = told.strip()
    return revoked


def retire(folder: Path, name: str, at: datetime) -> bool:
    """End the time in which a key signs and releases; tell whether it had not ended.

    Raises:
        OSError: the folder cannot be written.
        ConfigError: its list of revoked keys cannot be read.
    """
    key = read_keys(folder).keys.get(name)
    if key is None or key.retired_at is not None:
        return False
    write_key(folder, replace(key, retired_at=at.astimezone(UTC).replace(microsecond=0)))
    return True


def revoke(folder: Path, key: str, *, at: datetime, actor: str, reason: str) -> bool:
    """Add a key to the list of those that nobody believes; tell whether it was not there.

    Raises:
        ConfigError: the list is malformed, or cannot be written.
    """
    path = folder / REVOKED
    try:
        with FileLock(folder / f".{REVOKED}.lock", timeout=LOCK_SECONDS, mode=0o600):
            before = path.read_text(encoding="utf-8") if path.exists() else _HEADER
            if key in _read_revoked(path, needed=False):
                return False
            told = " ".join(f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ} {actor}: {reason}".split())
            write_whole(path, f"{before.rstrip()}\n{key} {told}\n")
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror}): add the line `{key}` to it where it is "
            "yours to write"
        ) from None
    return True


def merge_keys(folder: Path, files: Mapping[str, bytes]) -> None:
    """Add the keys and revocations of another folder to this one; nothing here is taken back.

    Raises:
        ConfigError: a list of revoked keys is malformed, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{REVOKED}.lock", timeout=LOCK_SECONDS, mode=0o600):
            _merge(folder, files)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written ({error.strerror})") from None


def _merge(folder: Path, files: Mapping[str, bytes]) -> None:
    known = read_keys(folder).revoked
    # The list first: without one, no key beside it is believed.
    path = folder / REVOKED
    lines = path.read_text(encoding="utf-8") if path.exists() else _HEADER
    for line in files.get(REVOKED, b"").decode("utf-8", "replace").splitlines():
        name = line.strip().partition(" ")[0]
        if _ID.fullmatch(name) and name not in known:
            lines = f"{lines.rstrip()}\n{line}\n"
    write_whole(path, lines)
    for name, content in files.items():
        path = folder / name
        if name != REVOKED and is_public_file(name) and not path.exists():
            write_whole(path, content.decode("utf-8", "replace"))


def verify_bytes(key: PublicKey, signature: bytes, content: bytes) -> None:
    """Raise InvalidSignature (of `cryptography`) unless a signature is the key's own."""
    Ed25519PublicKey.from_public_bytes(key.public).verify(signature, content)


def write_key(folder: Path, key: PublicKey) -> None:
    """Write the file of a public key; with the first one an empty list of those revoked."""
    folder.mkdir(parents=True, exist_ok=True)
    # A list that is missing beside keys was taken away, and is for a person to put back.
    if not (folder / REVOKED).exists() and not any(folder.glob("*.json")):
        write_whole(folder / REVOKED, _HEADER)
    content = {
        "format": _FORMAT,
        "public": base64.b64encode(key.public).decode("ascii"),
        "made_at": key.made_at.isoformat(),
        "expires_at": key.expires_at.isoformat(),
        "retired_at": None if key.retired_at is None else key.retired_at.isoformat(),
    }
    write_whole(folder / f"{key.id}.json", json.dumps(content, indent=1) + "\n")


def write_whole(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Write a file whole; where root does it, it belongs to whom the folder's others belong to."""
    with written_aside(path, mode=mode, durable=True) as aside:
        aside.write_text(text, encoding="utf-8")
        aside.chmod(mode)  # whatever the umask: public keys are for everybody
        if os.geteuid() == 0:
            whose = (path if path.exists() else path.parent).stat()
            os.chown(aside, whose.st_uid, whose.st_gid)
