"""Golden rows: rows with a model's scores of when it was fitted, asked again whenever it is loaded.

A model that answers otherwise is another one, whatever its digest says: another library, another
processor, a damaged file that was recorded after the damage.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from include.errors import ArtefactError

if TYPE_CHECKING:
    from include.models.encoding import Schema
    from include.models.kinds import ServedModel

# Of a probability. The same trees give the same bits; a sum in another order (rows at once, another
# build of the library) differs by less than 1e-12, another model by far more than this.
TOLERANCE = 1e-9


def rows_to_json(rows: Sequence[Mapping[str, Any]], scores: Sequence[float]) -> bytes:
    """Return the content of `golden.json`."""
    return json.dumps({"rows": list(rows), "scores": list(scores)}, allow_nan=False).encode()


def digest(content: bytes) -> str:
    """Return the digest of `golden.json` by which the schema names it."""
    return "sha256:" + hashlib.sha256(content).hexdigest()


def verified_rows(schema: Schema, files: Mapping[str, bytes]) -> bytes:
    """Return the golden rows of a bundle, if they are those that its schema names.

    Raises:
        ArtefactError: they are not.
    """
    content = files["golden.json"]
    if digest(content) != schema.golden:
        raise ArtefactError(
            "golden.json is not the one that schema.json names; train the model again"
        )
    return content


def check_answers(model: ServedModel, content: bytes) -> int:
    """Ask a model its golden rows, one by one and all at once, and return how many there are.

    Raises:
        ArtefactError: there are none, or an answer differs by more than the tolerance.
    """
    golden = json.loads(content)
    rows, expected = golden["rows"], golden["scores"]
    if not rows or len(rows) != len(expected):
        raise ArtefactError(
            "golden.json holds no rows to ask; a model that cannot be checked is not served"
        )
    batch = model.many(rows)
    for number, (row, score) in enumerate(zip(rows, expected, strict=True)):
        for answer in (model.one(row), float(batch[number])):
            # Not `>`: an answer that is NaN must not pass.
            if not abs(answer - score) <= TOLERANCE:
                raise ArtefactError(
                    f"golden row {number}: the model answers {answer!r}, recorded is {score!r}; "
                    "not served"
                )
    return len(rows)
