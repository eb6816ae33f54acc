"""How a row becomes the numbers that a model is asked with, once for training and serving alike."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from include.errors import ArtefactError
from include.models.kinds import DEFAULT
from include.texts import plain_text

_NAN = float("nan")


class InvalidFeature(ValueError):
    """A row has no value, or one of a wrong type, for `feature`."""

    def __init__(self, feature: str, problem: str) -> None:
        super().__init__(f"feature {feature!r} {problem}")
        self.feature = feature
        self.problem = problem


@dataclass(frozen=True)
class Feature:
    """One input of a model; `codes` holds the categories that training saw (type string only).

    `null_values` are texts that mean no value, beside the empty one.
    """

    name: str
    type: str
    codes: Mapping[str, int] | None = None
    missing: int = -1
    unknown: int = -1
    null_values: tuple[str, ...] = ()


@dataclass(frozen=True)
class Schema:
    """What a model's columns mean, and how its raw score becomes a probability (`calibration`).

    `golden` is the digest of the golden rows, `kind` the kind of the model.
    """

    use_case: str
    feature_set: str
    features: tuple[Feature, ...]
    slope: float
    offset: float
    threshold: float
    golden: str
    kind: str = DEFAULT

    @property
    def names(self) -> list[str]:
        """The features in the order of the model's columns."""
        return [feature.name for feature in self.features]

    @property
    def categorical(self) -> list[int]:
        """Positions of the features that hold category codes."""
        return [index for index, feature in enumerate(self.features) if feature.codes is not None]

    def to_json(self) -> str:
        """Return the text of schema.json; equal schemas give equal text."""
        features = [
            {"name": f.name, "type": f.type}
            | (
                {}
                if f.codes is None
                else {"codes": dict(f.codes), "missing": f.missing, "unknown": f.unknown}
            )
            # Without any, a bundle has the digest that it had before they were kept.
            | ({"null_values": list(f.null_values)} if f.null_values else {})
            for f in self.features
        ]
        content = {
            "format": 1,
            # LightGBM's bundles came before kinds: equal data gives the digest that it always gave.
            **({} if self.kind == DEFAULT else {"kind": self.kind}),
            "use_case": self.use_case,
            "feature_set": self.feature_set,
            "features": features,
            "calibration": {"method": "platt", "slope": self.slope, "offset": self.offset},
            "threshold": self.threshold,
            "golden": self.golden,
        }
        return json.dumps(content, indent=1, ensure_ascii=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: bytes | str) -> Schema:
        """Read schema.json.

        Raises:
            ArtefactError: the text is no schema of this format.
        """
        try:
            content = json.loads(text)
            if content["format"] != 1 or content["calibration"]["method"] != "platt":
                raise ValueError(f"format {content['format']} is not 1")
            features = tuple(
                Feature(
                    f["name"],
                    f["type"],
                    f.get("codes"),
                    f.get("missing", -1),
                    f.get("unknown", -1),
                    tuple(f.get("null_values", ())),
                )
                for f in content["features"]
            )
            slope, offset = (
                float(content["calibration"]["slope"]),
                float(content["calibration"]["offset"]),
            )
            threshold = float(content["threshold"])
            if not features or not all(map(math.isfinite, (slope, offset, threshold))):
                raise ValueError("no features, or a number that is not finite")
            return cls(
                content["use_case"],
                content["feature_set"],
                features,
                slope,
                offset,
                threshold,
                content["golden"],
                content.get("kind", DEFAULT),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtefactError(
                f"schema.json is no schema that this version reads ({error}); train the model again"
            ) from error


def encoder(feature: Feature) -> Callable[[object], float]:
    """Return the function that turns one value of a feature into the number that the model sees.

    Null, NaN and infinity are missing. A text that is no category as it stands is read as ingestion
    reads one: without blanks at its ends, missing where it is empty or one of the `null_values`. An
    unseen category gets the unknown code. Other types are refused.
    """
    name = feature.name
    if feature.codes is not None:
        table: dict[object, float] = {text: float(code) for text, code in feature.codes.items()}
        table[None] = float(feature.missing)
        # What SQL made a category of stays one.
        for text in ("", *feature.null_values):
            table.setdefault(text, table[None])
        unknown = float(feature.unknown)

        def category(value: object) -> float:
            if value is None or type(value) is str:
                try:
                    return table[value]
                except KeyError:
                    return table.get(plain_text(str(value)), unknown)
            if isinstance(value, str):
                return category(str(value))
            if isinstance(value, (float, np.floating)) and math.isnan(value):
                return table[None]
            raise InvalidFeature(name, f"must be text or null, not {type(value).__name__}")

        return category

    def number(value: object) -> float:
        if value is None:
            return _NAN
        if isinstance(value, (int, float, np.number, np.bool_)):
            try:
                result = float(value)
            except OverflowError:
                return _NAN
            return result if -math.inf < result < math.inf else _NAN
        raise InvalidFeature(name, f"must be a number or null, not {type(value).__name__}")

    return number


Columns = Mapping[str, "Sequence[object] | NDArray[np.generic]"]


def encode(rows: Sequence[Mapping[str, object]] | Columns, schema: Schema) -> NDArray[np.float64]:
    """Return the matrix of rows, or of columns by name: a row each, a column a feature.

    Columns stand in the order of the schema.

    Raises:
        InvalidFeature: a feature is missing from a row, or a value has a wrong type.
    """
    size = len(next(iter(rows.values()), ())) if isinstance(rows, Mapping) else len(rows)
    matrix = np.empty((size, len(schema.features)), dtype=np.float64)
    for position, feature in enumerate(schema.features):
        values: Sequence[object] | NDArray[np.generic]
        try:
            values = (
                rows[feature.name]
                if isinstance(rows, Mapping)
                else [row[feature.name] for row in rows]
            )
        except KeyError:
            raise InvalidFeature(
                feature.name, "is missing; send null where it is not known"
            ) from None
        if isinstance(values, np.ndarray) and values.dtype.kind in "fiub" and feature.codes is None:
            column = values.astype(np.float64)
            column[~np.isfinite(column)] = np.nan
            matrix[:, position] = column
        else:
            code = encoder(feature)
            matrix[:, position] = [code(value) for value in values]
    return matrix
