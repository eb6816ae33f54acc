"""Read the request of a prediction, and check its types.

What is wrong is told with its field, by the use case and the models in service.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from include.deployment.description import Description
from include.serving.http import MAX_ECHO, Refusal
from include.serving.snapshot import Served
from include.serving.typed_rows import INT_LIMIT, MAX_TEXT
from include.texts import plain_text


class PredictionRequest(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a prediction request."""

    entity: int | str | msgspec.UnsetType | None = msgspec.UNSET
    features: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


_decode_request = msgspec.json.Decoder(PredictionRequest).decode


def parse_request(body: bytes | msgspec.Raw) -> PredictionRequest:
    """Read the body of a request, or a row of a batch.

    Raises:
        Refusal: 400 for what is no JSON (NaN and endless nesting among it), 422 for JSON of another
            form, with the field.
    """
    try:
        request = _decode_request(body)
    except msgspec.ValidationError as error:
        raise wrong_form(str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Refusal(400, "bad_json", f"the body is no valid JSON: {error}") from None
    except RecursionError:
        raise Refusal(400, "bad_json", "the body is nested too deeply") from None
    if request.entity is msgspec.UNSET and request.features is msgspec.UNSET:
        raise Refusal(422, "invalid", 'give "entity", or a full row of "features"', field="entity")
    return request


def wrong_form(message: str) -> Refusal:
    """Return the refusal for msgspec's message, with the field that the message names.

    msgspec says "... unknown field `x`" or "... - at `$.features`"; a body that is no object at all
    has neither.
    """
    text, _, path = message.partition(" - at `$")
    said, found, unknown = text.partition("unknown field `")
    if found:  # the name is the caller's, of any length
        text = f"{said}{found}{unknown.rstrip('`')[:MAX_ECHO]}`"
    field = unknown.rstrip("`") or path.rstrip("`").lstrip(".").partition("[")[0]
    return Refusal(422, "invalid", text, field=field or "body")


class CheckedRequest(msgspec.Struct):
    """A request whose types are right: whom it is about, and the features that came with it.

    `until` is when its answer is waited for no longer, in the loop's seconds; 0: not set yet;
    `batch`: it is that of a batch, whose rows share it. Where a release is under way, `content` is
    the row of a request without an entity as it came, `assigned` the arm that it is meant for,
    `failed` why that one did not answer, and `lacks` the feature that the challenger missed.
    `neither`: the champion failed, and so did the model before it, which was asked the same.
    """

    entity: int | str | None
    row: dict[str, Any] | None
    until: float = 0.0
    batch: bool = False
    content: bytes = b""
    assigned: str = "champion"
    failed: str = ""
    lacks: str = ""
    neither: bool = False


class _RowAsItCame(msgspec.Struct):
    features: msgspec.Raw = msgspec.Raw(b"")


_decode_row = msgspec.json.Decoder(_RowAsItCame).decode


def read_request(body: bytes | msgspec.Raw, served: Served) -> CheckedRequest:
    """Read and check a request.

    Raises:
        Refusal: as `parse_request` and `check_request` do.
    """
    request = check_request(parse_request(body), served)
    if request.entity is None and served.release is not None:
        request.content = bytes(_decode_row(body).features)
    return request


def check_request(request: PredictionRequest, served: Served) -> CheckedRequest:
    """Check the types of a request: its entity by the use case, its row by the models in service.

    Raises:
        Refusal: 422 with the field.
    """
    entity = None if request.entity is msgspec.UNSET else request.entity
    row = None if request.features is msgspec.UNSET else request.features
    if row is None or entity is not None:
        entity = _check_entity(served.use_case, entity)
    if row is not None:
        _check_row(row, served.feature_types)
    return CheckedRequest(entity, row)


def _check_entity(use_case: Description, entity: int | str | None) -> int | str:
    """Return the key of an entity, a text as ingestion reads the keys of rows."""
    # `type(...) is`, since True is an int for isinstance.
    if use_case.entity.type == "int64":
        if type(entity) is not int or not -INT_LIMIT <= entity < INT_LIMIT:
            raise Refusal(
                422,
                "invalid",
                f"entity must be a whole number ({use_case.entity.key})",
                field="entity",
            )
        return entity
    text = plain_text(entity) if type(entity) is str else ""
    if not 0 < len(text) <= MAX_TEXT:
        raise Refusal(
            422,
            "invalid",
            f"entity must be text ({use_case.entity.key}), 1 to {MAX_TEXT} characters",
            field="entity",
        )
    return text


def _check_row(row: Mapping[str, Any], types: Mapping[str, str]) -> None:
    for name, value in row.items():
        declared = types.get(name)
        field = f"features.{name[:80]}"
        if declared is None:
            raise Refusal(
                422,
                "invalid",
                f"{name[:80]!r} is no feature of this use case; remove it",
                field=field,
            )
        if value is None:
            continue
        given = type(value)
        if declared == "string":
            is_right = given is str and len(value) <= MAX_TEXT
        elif declared == "bool":
            is_right = given is bool
        elif declared == "int64":  # 2.0 too: JSON of JavaScript knows no other numbers
            is_right = (given is int and -INT_LIMIT <= value < INT_LIMIT) or (
                given is float and value.is_integer() and -INT_LIMIT <= value < INT_LIMIT
            )
        else:  # a whole number without bound could be too large for a float
            is_right = given is float or (given is int and -INT_LIMIT <= value < INT_LIMIT)
        if not is_right:
            raise Refusal(
                422, "invalid", f"{name} must be {_TYPE_WORDS[declared]} or null", field=field
            )


_TYPE_WORDS = {
    "string": f"text of at most {MAX_TEXT} characters",
    "bool": "true or false",
    "int64": "a whole number of 64 bits",
    "float64": "a number",
}
