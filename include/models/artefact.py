"""One digest over all that runs when a model answers: its bundle, its Bento's code, its pins.

It stands in the model's row. Whoever starts a part computes that part's own digest from what it is
about to run, and asks here whether the three belong together: a row of which one column was changed
is refused, whichever column that is.
"""

from __future__ import annotations

import hashlib

from include.errors import ArtefactError
from include.records.models import Model


def artefact_digest(bundle: str, code: str, pins: str) -> str:
    """Return the digest of a whole artefact, of the digests of its three parts."""
    parts = "\0".join(("artefact", bundle, code, pins))
    return "sha256:" + hashlib.sha256(parts.encode()).hexdigest()


def verify_row(model: Model) -> None:
    """Refuse a model whose recorded digests do not belong together.

    A model without the digest of the whole (packaged by an earlier version, and not vouched for at
    the upgrade) passes: only its bundle may run then, by the node's own code.

    Raises:
        ArtefactError: they do not, or its files were collected.
    """
    refuse_collected(model)
    if model.artefact_digest is None:
        return
    parts = (model.model_digest, model.bento_digest or "", model.pins or "")
    found = artefact_digest(*parts)
    if found != model.artefact_digest:
        raise ArtefactError(
            f"model {model.version}: the digests of its bundle, its bento's code and its pins "
            f"together are {found}, recorded is {model.artefact_digest}; its row was changed. "
            "Package the model again"
        )


def refuse_collected(model: Model) -> None:
    """Refuse a model whose files were given up: it was not needed any more.

    Raises:
        ArtefactError: they were; says how to have them again.
    """
    if model.collected_at is not None:
        raise ArtefactError(
            f"the files of {model.use_case} version {model.version} were collected on "
            f"{model.collected_at:%Y-%m-%d}, when nothing needed them any more; `evergreen run "
            f"train_model --use-case {model.use_case} --partition {model.partition}` makes them "
            "again"
        )
