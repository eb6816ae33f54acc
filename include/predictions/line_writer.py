"""Write lines of the prediction log: each is put together from bytes that are there already.

Encoding a struct with a row of 30 features costs more than the model's answer. So all that is the
same for every answer of a model in an arm is encoded once, and the row comes as the JSON that the
request brought, or that was encoded for another reason.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from math import isfinite
from typing import Any

import msgspec

from include.predictions.line import VERSION
from include.predictions.log import PredictionLog

MAX_ROW = 16 * 1024  # bytes of a row as it came; a longer one is written anew, without its blanks
MAX_TEMPLATES = 64
_encode = msgspec.json.Encoder().encode
_decode_row = msgspec.json.Decoder(dict[str, Any]).decode
_NULL = b"null"
# Everything that differs from line to line; `%b` takes JSON that is whole.
_TAIL = (
    b'"request_id":"%b","caller_id":%b,"at":%d,"outcome":"%b","reason":"%b","entity":%b,'
    b'"score":%b,"decision":%b,"flags":"%b","features_at":%b,"latency_us":%d,"model_us":%b,'
    b'"features":%b}\n'
)


class Source(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whose answers the lines are: a model in an arm, under a generation of the routing row.

    `version`, `digest` and `feature_set` are None where no model could be asked. `release` and
    `step` are those of a release that is under way; `batch` says that lines are rows of batches.
    """

    version: int | None
    digest: str | None
    feature_set: str | None
    arm: str | None
    assigned: str
    generation: int
    threshold: float | None
    release: str | None = None
    step: int | None = None
    batch: bool = False


class LineWriter:
    """Writes the lines of one use case into its log; it belongs to the event loop.

    `pii` are features that are cut out; `name_of`, where it is given, names an entity in place of
    its key.
    """

    def __init__(
        self,
        log: PredictionLog,
        *,
        pii: Collection[str] = (),
        name_of: Callable[[str], str] | None = None,
    ) -> None:
        self.log = log
        self._pii, self._name_of = frozenset(pii), name_of
        self._templates: dict[Source, bytes] = {}
        self._decisions: dict[str, bytes] = {}

    def template(self, source: Source) -> bytes:
        """Return what all lines of a source begin with; keep it, and give it to `write`."""
        template = self._templates.get(source)
        if template is None:
            if len(self._templates) >= MAX_TEMPLATES:
                self._templates.clear()
            head = _encode({"v": VERSION, **msgspec.to_builtins(source)})
            template = head[:-1].replace(b"%", b"%%") + b"," + _TAIL
            self._templates[source] = template
        return template

    def write(self, *lines: bytes) -> None:
        """Put lines on disk, all by one write: those of a batch are there together or not at all.

        Raises:
            Unavailable: they could not be written whole; then nothing may be answered.
        """
        self.log.append(lines[0] if len(lines) == 1 else b"".join(lines), len(lines))

    def line(
        self,
        template: bytes,
        *,
        request_id: str,
        caller_id: str | None,
        at: int,
        entity: int | str | None,
        features: bytes | None,
        latency_us: int,
        score: float | None = None,
        decision: str | None = None,
        model_us: int | None = None,
        flags: Collection[str] = (),
        features_at: int | None = None,
        outcome: bytes = b"answered",
        reason: bytes = b"",
    ) -> bytes:
        """Return the line of one request.

        `at` and `features_at` are in microseconds since 1970. `features` is a JSON object as UTF-8,
        such as the bytes of the request's own row; None: no row was found. `request_id` is the
        node's, `caller_id` the caller's; they and the flags hold no character that JSON escapes,
        nor do `outcome` and `reason`.
        """
        if features is None:
            row = _NULL
        elif self._pii or len(features) > MAX_ROW:
            row = self._rewrite(features)
        else:
            # Line feeds can only stand between values (in a text JSON escapes them): here they
            # would end the line.
            row = features.replace(b"\n", b" ") if b"\n" in features else features
        return template % (
            request_id.encode("ascii"),
            _NULL if caller_id is None else b'"%b"' % caller_id.encode("ascii"),
            at,
            outcome,
            reason,
            self._entity(entity),
            # numpy's floats write themselves otherwise, and JSON knows no NaN.
            _NULL
            if score is None or not isfinite(score)
            else float.__repr__(score).encode("ascii"),
            _NULL if decision is None else self._decision(decision),
            ",".join(flags).encode("ascii") if flags else b"",
            _NULL if features_at is None else b"%d" % features_at,
            latency_us,
            _NULL if model_us is None else b"%d" % model_us,
            row,
        )

    def _entity(self, entity: int | str | None) -> bytes:
        if entity is None:
            return _NULL
        if self._name_of is not None:
            return b'"%b"' % self._name_of(str(entity)).encode("ascii")
        return b'"%d"' % entity if type(entity) is int else _encode(entity)

    def _decision(self, decision: str) -> bytes:
        text = self._decisions.get(decision)
        if text is None:
            if len(self._decisions) >= MAX_TEMPLATES:
                self._decisions.clear()
            text = self._decisions[decision] = _encode(decision)
        return text

    def _rewrite(self, features: bytes) -> bytes:
        """Return a row without what is cut out, and each value once and as short as it is."""
        row = _decode_row(features)
        return _encode({name: value for name, value in row.items() if name not in self._pii})
