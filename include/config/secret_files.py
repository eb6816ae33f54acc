"""Secrets in files of their own: made once by whoever is first, never empty, never guessable."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from include.errors import ConfigError
from include.files import sync_folder

SECRET_LENGTH = 32  # characters; a generated one has 43


def checked(text: str, where: str, remedy: str) -> str:
    """Return a secret; refuse an empty one, which everybody knows, and one that can be guessed.

    `where` it stands and the `remedy` are said.

    Raises:
        ConfigError: it is too short, or not printable.
    """
    # A file that a loss of power cut off may hold NUL bytes, as many as the secret had letters.
    if len(text) < SECRET_LENGTH or not text.isprintable():
        held = f"has {len(text)} characters" if text.isprintable() and text else "is empty"
        raise ConfigError(f"{where} {held}, and a secret has at least {SECRET_LENGTH}. {remedy}")
    return text


def secret_text(path: Path, remedy: str) -> str:
    """Return the secret in a file; the `remedy` is said where it holds none.

    Raises:
        ConfigError: it cannot be read, is too short, or not printable.
    """
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        # Of wrong bytes the error would show some.
        why = error.strerror if isinstance(error, OSError) else "it is no plain text"
        raise ConfigError(f"{path} cannot be read as a secret ({why}). {remedy}") from None
    return checked(text, str(path), remedy)


def owner_remedy() -> str:
    """Return how files of secrets are given to this process, which cannot read them."""
    user = os.getuid()
    return (
        f"it is to be plain text of user {user} with mode 0400 (`chown {user} FILE`, `chmod 400 "
        "FILE`), in a container the file that is mounted there"
    )


def make_secret(path: Path) -> None:
    """Write a new secret, unless another process or thread is first; then its secret stays."""
    # Threads make one at the same time too, so the process id would not do.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32))
            file.flush()
            # Before it has its name: a loss of power would leave an empty file under it.
            os.fsync(file.fileno())
        # A link fails where the name exists: the first maker wins, others read its secret.
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink()
    # The name too, before anything is signed by a secret that a loss of power would replace.
    sync_folder(path.parent)
