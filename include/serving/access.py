"""Who may ask what of the node: each route needs a role, and a token says whose it is and what for.

The tokens are read again while the node runs. What cannot be read changes nothing: the tokens of
before stay valid, and the problem is shown.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import secrets
from collections.abc import Callable, Iterable

from starlette.types import Scope

from include.config.settings import Settings
from include.config.tokens import ROLES, Role, Token, read_tokens, tokens_file
from include.errors import ConfigError
from include.serving.http import Refusal, header

log = logging.getLogger(__name__)

ANYBODY = ""  # the name of a caller of whom no token was asked


def open_roles(settings: Settings) -> frozenset[Role]:
    """Return the roles that need no token: on a loopback address only changes of state need one."""
    if settings.predict == "token":
        return frozenset()
    if not settings.is_public:
        return frozenset({"predict", "read"})
    return frozenset({"predict"}) if settings.predict == "open" else frozenset()


class Access:
    """Knows the tokens and tells whose a request is; belongs to the event loop."""

    def __init__(self, tokens: Iterable[Token], *, free: frozenset[Role] = frozenset()) -> None:
        """Build it; whoever asks needs no token for the roles in `free`."""
        self.free = free
        self.problem = ""
        # What is looked up is a keyed digest, so that the time it takes tells nothing of a secret.
        self._key = secrets.token_bytes(32)
        self._tokens: dict[bytes, tuple[bytes, Token]] = {}
        self.count: Callable[[str], None] = lambda event: None  # told each refusal
        self.replace(tokens)

    def replace(self, tokens: Iterable[Token]) -> None:
        """Accept these tokens, and no others, from the next request on."""
        found = {}
        for token in tokens:
            digest = self._digest(token.secret.get_secret_value().encode())
            found[digest[:16]] = (digest, token)
        self._tokens = found

    def require(self, scope: Scope, role: Role | None) -> str:
        """Return the name of a request's caller, `ANYBODY` where no token is needed.

        Raises:
            Refusal: 401 without a valid token, 403 with one that has not the role.
        """
        if role is None or role in self.free:
            return ANYBODY
        token = self._find(header(scope, b"authorization"), role)
        if token is None:
            self.count("unauthorised")
            log.warning("%s from %s without a valid token was refused", role, _client(scope))
            raise Refusal(
                401,
                "unauthorised",
                f"this needs a token with the role {role}: send it as `Authorization: Bearer ...`",
                headers=[(b"www-authenticate", _challenge(role))],
                linger=True,
            )
        if role not in token.roles:
            self.count("forbidden")
            log.warning("%s by the token %s, which has not the role, was refused", role, token.name)
            raise Refusal(
                403,
                "forbidden",
                f"the token {token.name!r} has not the role {role}, it has "
                f"{', '.join(one for one in ROLES if one in token.roles)}",
                linger=True,
            )
        return token.name

    def name_of(self, given: bytes | None, role: Role) -> str | None:
        """Return what `require` would of a request with this header `authorization`; None: no."""
        if role in self.free:
            return ANYBODY
        token = self._find(given, role)
        return token.name if token is not None and role in token.roles else None

    def _find(self, given: bytes | None, role: Role) -> Token | None:
        if given is None:
            return None
        scheme, _, secret = given.partition(b" ")
        secret = secret.strip()
        scheme = scheme.lower()
        # A browser asks for a name and a password, and sends them with whatever another site makes
        # it ask: good enough to read a page, and for nothing else.
        if scheme == b"basic" and role == "read":
            secret = _password(secret)
        elif scheme != b"bearer":
            return None
        digest = self._digest(secret)
        known = self._tokens.get(digest[:16])
        if known is None or not hmac.compare_digest(known[0], digest):
            return None
        return known[1]

    def _digest(self, secret: bytes) -> bytes:
        return hashlib.blake2b(secret, key=self._key, digest_size=48).digest()


class TokenSource:
    """Looks whether the file of the tokens has changed, and reads it; apart from the event loop."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._path = settings, tokens_file(settings)
        self._seen = self._look()

    def read(self) -> tuple[Token, ...]:
        """Return the tokens that are valid now.

        Raises:
            ConfigError: they cannot be read.
        """
        return read_tokens(self._settings)

    def news(self) -> tuple[Token, ...] | ConfigError | None:
        """Return the tokens if their file has changed since the last look, or why there are none.

        A file that is gone is no change: whoever wants to revoke all tokens says so by an edit.
        """
        seen = self._look()
        if seen == self._seen:
            return None
        self._seen = seen
        if seen is None:
            return ConfigError(f"{self._path} is gone; the tokens of before stay valid")
        try:
            return self.read()
        except ConfigError as error:
            return error

    def _look(self) -> tuple[int, ...] | None:
        try:
            state = self._path.stat()
        except OSError:
            return None
        return state.st_ino, state.st_mtime_ns, state.st_size


def take_news(access: Access, news: tuple[Token, ...] | ConfigError | None) -> None:
    """Accept the tokens that were read anew, or show why those of before stay valid."""
    if news is None:
        return
    if isinstance(news, ConfigError):
        access.problem = str(news)
        log.error("the tokens of before stay valid: %s", news)
        return
    access.problem = ""
    access.replace(news)
    log.info("%d tokens are valid from now on", len(news))


def _password(encoded: bytes) -> bytes:
    """Return the password of HTTP's basic scheme; the name before it says nothing."""
    try:
        return base64.b64decode(encoded, validate=True).partition(b":")[2]
    except (ValueError, binascii.Error):
        return b""


def _challenge(role: Role) -> bytes:
    """Return how to ask: a browser shows its question for a password where Basic stands alone."""
    return b'Basic realm="password: a token", charset="UTF-8"' if role == "read" else b"Bearer"


def _client(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else "unknown"
