"""The name under which an entity stands in the prediction log where its key tells who it is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

MARK = "h:"
KEY_NAME = "entity_key"  # of the generated secret


def entity_hasher(key: str) -> Callable[[str], str]:
    """Return the function that names an entity: a keyed hash of its key as text (BLAKE2b).

    Whoever joins outcomes to logged answers names the outcomes' entities by the same function, with
    the same key. Without the key nobody can try out names until one fits.
    """
    secret = hashlib.sha256(key.encode()).digest()

    def name_of(entity: str) -> str:
        text = entity.encode("utf-8", "surrogatepass")
        return MARK + hashlib.blake2b(text, key=secret, digest_size=16).hexdigest()

    return name_of
