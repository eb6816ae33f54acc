"""Rows of features, typed: one msgspec struct a snapshot reads, checks and orders them in C.

The features of the champion stand first, in the order of its columns; what only another model of
the routing row reads may follow. A row that does not fit is explained by
`prediction_request.check_request`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import astuple

MAX_TEXT = 1024  # characters of an entity's key or of a text feature
INT_LIMIT = 1 << 63  # what the lake's int64 columns hold
_Int = Annotated[int, msgspec.Meta(ge=-INT_LIMIT, le=INT_LIMIT - 1)]
_Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT)]
_VALUE_BYTES = 40  # of a number with its sign and exponent, and of the marks around its name
_FLOAT: Any = _Int | float | None
# As `prediction_request.check_request` has them.
_TYPES: dict[str, Any] = {
    "string": _Text | None,
    "bool": bool | None,
    "int64": _Int | None,
    "float64": _FLOAT,
}
_ENTITIES: dict[str, Any] = {
    "int64": _Int,
    "string": Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT)],
}
_encode = msgspec.json.Encoder().encode


@lru_cache(maxsize=8)
def request_decoder(entity: str) -> msgspec.json.Decoder[Any]:
    """Return what reads the body of a request about an entity whose key is of this type.

    What it reads has `entity` and `features`, the latter not read yet; either may be UNSET.
    """
    typed = msgspec.defstruct(
        "TypedRequest",
        [
            ("entity", _ENTITIES[entity] | None | UnsetType, UNSET),
            ("features", msgspec.Raw | UnsetType, UNSET),
        ],
        forbid_unknown_fields=True,
        gc=False,
    )
    return msgspec.json.Decoder(typed)


def names_features_once(request: Any, body: bytes) -> bool:
    """Tell whether a request, as it was read from this body, has one row at most.

    Of two the decoder has read the last one alone; the first may be no row, or no JSON.
    """
    row, entity = request.features, request.entity
    if row is UNSET:
        return True
    # Each name and each text has two quotation marks. Where an entity's key has more, it is for the
    # long way to say.
    marks = 2 if entity is UNSET else 6 if entity.__class__ is str else 4
    return body.count(b'"') - bytes(row).count(b'"') == marks


class RowReader:
    """Reads rows of the features `names`, which must be there, and of `others`, which may be.

    Use `row_reader`: a struct is a class, and one made anew for each swap would stay for ever.
    """

    def __init__(self, names: Sequence[str], others: Sequence[str], types: Sequence[str]) -> None:
        columns = (*names, *others)
        self._decode = _decoder(columns, types, len(names), _TYPES)
        self._decode_floats = _decoder(columns, types, len(names), {**_TYPES, "int64": _FLOAT})
        self._wholes = [place for place, kind in enumerate(types) if kind == "int64"]
        self._width, self._count = len(names), len(columns)
        self._usual = sum(len(name) + _VALUE_BYTES for name in columns)
        self._texts = [number for number, kind in enumerate(types) if kind == "string"]

    def read(self, content: msgspec.Raw) -> tuple[tuple[Any, ...], bytes]:
        """Return the values of `names` in their order, and the row as JSON on one line.

        The JSON is the content itself wherever that is exactly what was read.

        Raises:
            msgspec.DecodeError: it is no such row, or no JSON.
        """
        try:
            row = self._decode(content)
        except msgspec.ValidationError:
            row = self._read_floats(content)
        values, text, present = astuple(row), bytes(content), self._count
        if present > self._width:
            present -= values[self._width :].count(UNSET)
        marks = present
        for place in self._texts:
            marks += values[place].__class__ is str
        # Each name and each text has two quotation marks. Where there are more, a name stands twice
        # or a mark is escaped: readers of the log may take another one of two than was asked here.
        # What is longer than such rows are may be blanks, by which a client could fill the disk.
        if (
            text.count(b'"') != 2 * marks
            or len(text) > self._usual
            or b"\n" in text
            or b"\r" in text
        ):
            text = _encode(row)
        return values[: self._width], text

    def _read_floats(self, content: msgspec.Raw) -> msgspec.Struct:
        """Read a row whose whole numbers are written as 2.0, as some clients do."""
        row = self._decode_floats(content)
        values = astuple(row)
        for place in self._wholes:
            value = values[place]
            if value.__class__ is float and not (
                value.is_integer() and -INT_LIMIT <= value < INT_LIMIT
            ):
                raise msgspec.ValidationError(f"{value} is no whole number of 64 bits")
        return row


def _decoder(
    columns: Sequence[str], types: Sequence[str], needed: int, by_type: Mapping[str, Any]
) -> Callable[[msgspec.Raw], msgspec.Struct]:
    """Return what reads a row of these columns; the first `needed` must be there."""
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = [
        (f"f{number}", by_type[kind])
        if number < needed
        else (f"f{number}", by_type[kind] | UnsetType, UNSET)
        for number, kind in enumerate(types)
    ]
    struct = msgspec.defstruct(
        "Row",
        fields,
        # A feature may have a name that no field of a class can have.
        rename={f"f{number}": name for number, name in enumerate(columns)},
        forbid_unknown_fields=True,
        gc=False,
    )
    return msgspec.json.Decoder(struct).decode


@lru_cache(maxsize=256)
def _reader(names: tuple[str, ...], others: tuple[str, ...], types: tuple[str, ...]) -> RowReader:
    return RowReader(names, others, types)


def row_reader(features: Sequence[str], types: Mapping[str, str]) -> RowReader | None:
    """Return the reader of a model's rows.

    `features` are those of the model in its order, `types` those of all that a row may hold. None:
    a type is missing or not known, or a name is none that a struct can read.
    """
    others = tuple(name for name in types if name not in set(features))
    columns = (*features, *others)
    kinds = tuple(types.get(name, "") for name in columns)
    if any(kind not in _TYPES for kind in kinds):
        return None
    try:
        return _reader(tuple(features), others, kinds)
    except ValueError:  # a name with a quotation mark, or two equal ones
        return None


@lru_cache(maxsize=256)
def row_writer(columns: tuple[str, ...]) -> type[msgspec.Struct]:
    """Return the struct by which values are written as a JSON object with these names."""
    return msgspec.defstruct(
        "StoredRow",
        [(f"f{number}", Any) for number in range(len(columns))],
        rename={f"f{number}": name for number, name in enumerate(columns)},
        gc=False,
    )
