"""The tokens of a serving node's callers: a name, its roles and a secret each.

One a line, `NAME ROLE[,ROLE] SECRET`, in a file or a variable; `#` begins a comment. A name may
stand on two lines with two secrets, so that one can be replaced by the other without a gap.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from filelock import FileLock
from pydantic import SecretStr

from include.config.secret_files import SECRET_LENGTH
from include.config.settings import Settings
from include.errors import ConfigError
from include.files import written_aside

Role = Literal["predict", "read", "operate"]
ROLES: tuple[Role, ...] = get_args(Role)
OWN_NAME = "node token"  # of the installation's own token; no line can have it, for its space
MAX_TOKENS = 1000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_FORM = "a line is `NAME ROLE[,ROLE] SECRET`"


@dataclass(frozen=True, slots=True)
class Token:
    """Whom a secret stands for, and what it may be used for."""

    name: str
    roles: frozenset[Role]
    secret: SecretStr


def tokens_file(settings: Settings) -> Path:
    """Return the file of the tokens, which need not be there."""
    return Path(settings.node_tokens_file or settings.home / "secrets" / "tokens").expanduser()


def read_tokens(settings: Settings) -> tuple[Token, ...]:
    """Return the tokens that are valid now: the installation's own, the variable's, the file's.

    Raises:
        ConfigError: one is malformed, too short, given twice, or the file is there and is empty or
            cannot be read. No message holds a secret.
    """
    found = [Token(OWN_NAME, frozenset(ROLES), settings.node_secret)]
    if given := settings.node_tokens.get_secret_value():
        found += _parsed(given.replace(";", "\n"), "EVERGREEN_NODE_TOKENS")
    path = tokens_file(settings)
    if os.path.lexists(path) or settings.node_tokens_file:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise ConfigError(f"the tokens in {path} cannot be read: {reason}") from None
        found += _parsed(text, str(path))
    if len(found) > MAX_TOKENS:
        raise ConfigError(f"{len(found)} tokens are given, and at most {MAX_TOKENS} are taken")
    names: dict[str, str] = {}
    for token in found:
        known = names.setdefault(token.secret.get_secret_value(), token.name)
        if known != token.name:
            raise ConfigError(
                f"the tokens {known!r} and {token.name!r} have one secret, so that nobody could "
                "say whose it is; give each its own (`openssl rand -hex 32`)"
            )
    return tuple(found)


def add_token(settings: Settings, name: str, roles: Sequence[Role]) -> SecretStr:
    """Write a new token into the file of the tokens, and return its secret.

    Raises:
        ConfigError: the name or a role is none, or the file holds what no node would take.
    """
    path, secret = tokens_file(settings), secrets.token_urlsafe(32)
    line = f"{name} {','.join(roles)} {secret}"
    (token,) = _parsed(line, f"the token {name!r}")
    settings.make_home()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # Two commands at once: the later one would else put back the file as it was before the first.
    with FileLock(path.with_name(f".{path.name}.lock"), timeout=10, mode=0o600):
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        if before:
            read_tokens(settings)  # a file that is broken already is not made longer
        with written_aside(path, mode=0o600, durable=True) as aside:
            aside.write_text(f"{before.rstrip()}\n{line}\n".lstrip(), encoding="utf-8")
    return token.secret


def _parsed(text: str, where: str) -> list[Token]:
    """Return the tokens of some lines; `where` is what messages call them."""
    lines = [line.partition("#")[0].split() for line in text.splitlines()]
    found = [_token(words, f"{where}, line {at}") for at, words in enumerate(lines, 1) if words]
    if not found:
        raise ConfigError(f"{where} holds no token: {_FORM}. Leave it out if there is none")
    return found


def _token(words: list[str], where: str) -> Token:
    if len(words) != 3:
        raise ConfigError(f"{where} has {len(words)} words: {_FORM}")
    name, roles, secret = words
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{where}: a name has letters, digits and ._@- and begins with a letter or digit"
        )
    unknown = sorted(set(roles.split(",")) - set(ROLES))
    if unknown:
        raise ConfigError(
            f"{where}: {name} has the unknown role {unknown[0][:20]!r}; roles are "
            f"{', '.join(ROLES)}"
        )
    # Headers carry ASCII; other letters would never match.
    if len(secret) < SECRET_LENGTH or not (secret.isascii() and secret.isprintable()):
        raise ConfigError(
            f"{where}: the secret of {name} has {len(secret)} characters, and it needs at least "
            f"{SECRET_LENGTH} of ASCII; make one by `openssl rand -hex 32`"
        )
    return Token(
        name, frozenset(role for role in ROLES if role in roles.split(",")), SecretStr(secret)
    )
