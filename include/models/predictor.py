"""A LightGBM model in memory: what the serving node, a Bento and the judgement ask alike.

LightGBM's C library is called directly: the Python package would import pandas and scikit-learn
into the serving node.
"""

from __future__ import annotations

import ctypes
import importlib.util
import math
import struct
import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from include.errors import ArtefactError
from include.models import golden
from include.models.bundle import digest_of
from include.models.calibration import calibrated, sigmoid
from include.models.encoding import Columns, InvalidFeature, Schema, encode, encoder

_FLOAT64, _RAW_SCORE = 1, 1  # C_API_DTYPE_FLOAT64, C_API_PREDICT_RAW_SCORE
_PARAMETERS = b"num_threads=1 verbosity=-1"


class Predictor:
    """A booster in memory, with what turns a row into its columns and its score into a probability.

    Safe to share between threads: a lock guards the single-row buffers.
    """

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.digest = digest_of(files)
        self.schema = Schema.from_json(files["schema.json"])
        self._golden = golden.verified_rows(self.schema, files)
        self._encoders = [(feature.name, encoder(feature)) for feature in self.schema.features]
        self._lock = threading.Lock()
        self._slope, self._offset = self.schema.slope, self.schema.offset
        library, quick = _libraries()
        self._library = library
        self._ask_fast = quick.LGBM_BoosterPredictForMatSingleRowFast
        self._booster = ctypes.c_void_p()
        self._fast = ctypes.c_void_p()
        width = len(self._encoders)
        self._row: Any = (ctypes.c_double * width)()
        self._fill = struct.Struct(f"{width}d").pack_into
        self._score = (ctypes.c_double * 1)()
        self._length = ctypes.byref(ctypes.c_int64())
        # Categories alone are looked up one by one; of numbers only null and infinity need it.
        self._categories = [
            (place, code)
            for place, ((_, code), feature) in enumerate(
                zip(self._encoders, self.schema.features, strict=True)
            )
            if feature.codes is not None
        ]
        count = ctypes.c_int()
        _check(
            library.LGBM_BoosterLoadModelFromString(
                files["model.txt"], ctypes.byref(count), ctypes.byref(self._booster)
            ),
            "model.txt",
        )
        _check(library.LGBM_BoosterGetNumFeature(self._booster, ctypes.byref(count)), "model.txt")
        if count.value != width:
            raise ArtefactError(
                f"model.txt reads {count.value} features, schema.json names {width}; train the "
                "model again"
            )
        _check(library.LGBM_BoosterGetNumClasses(self._booster, ctypes.byref(count)), "model.txt")
        if count.value != 1:
            raise ArtefactError(
                f"model.txt gives {count.value} scores a row; only binary models are served"
            )
        _check(
            quick.LGBM_BoosterPredictForMatSingleRowFastInit(
                self._booster,
                _RAW_SCORE,
                0,  # from the first round
                -1,  # to the last
                _FLOAT64,
                ctypes.c_int32(width),
                _PARAMETERS,
                ctypes.byref(self._fast),
            ),
            "model.txt",
        )

    def __del__(self) -> None:
        library = getattr(self, "_library", None)
        if library is not None and self._fast:
            library.LGBM_FastConfigFree(self._fast)
        if library is not None and self._booster:
            library.LGBM_BoosterFree(self._booster)

    @property
    def features(self) -> list[str]:
        """The features that a row must hold."""
        return self.schema.names

    @property
    def threshold(self) -> float:
        """The score from which the decision is positive, as it was when the model was trained."""
        return self.schema.threshold

    def one(self, row: Mapping[str, object]) -> float:
        """Return the probability of one row; further keys are ignored.

        Raises:
            InvalidFeature: a feature is missing or has a wrong type.
        """
        try:
            values = [code(row[name]) for name, code in self._encoders]
        except KeyError as error:
            raise InvalidFeature(
                str(error.args[0]), "is missing; send null where it is not known"
            ) from None
        return self._ask(values)

    def of_values(self, values: Sequence[object]) -> float:
        """Return the probability of a row whose values stand in the order of `features`.

        They are what JSON knows: numbers, text, true, false, null. No number is looked at in Python
        unless one of them is null or not finite.

        Raises:
            InvalidFeature: a value has a wrong type.
        """
        numbers: Any = values
        if self._categories:
            numbers = list(values)
            for place, code in self._categories:
                numbers[place] = code(numbers[place])
        try:
            # One pass in C: a text or null cannot be added, and infinity or NaN stays in a sum. A
            # sum that overflows is taken for one of these, which costs time only.
            is_plain = len(numbers) == len(self._encoders) and math.isfinite(sum(numbers))
        except (TypeError, OverflowError):
            is_plain = False
        if not is_plain:
            numbers = [code(value) for (_, code), value in zip(self._encoders, values, strict=True)]
        return self._ask(numbers)

    def _ask(self, numbers: Sequence[float]) -> float:
        with self._lock:  # one buffer for all threads: allocating one a row costs more
            self._fill(self._row, 0, *numbers)
            status = self._ask_fast(self._fast, self._row, self._length, self._score)
            raw = self._score[0]
        if status:
            _check(status, "the booster")
        return sigmoid(self._slope * raw + self._offset)

    def many(self, rows: Sequence[Mapping[str, object]] | Columns) -> NDArray[np.float64]:
        """Return the probability of every row, in order."""
        return self.scores(encode(rows, self.schema))

    def scores(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the probability of every row of an encoded matrix."""
        data = np.ascontiguousarray(matrix, dtype=np.float64)
        raw = np.empty(len(data), dtype=np.float64)
        length = ctypes.c_int64()
        if len(data):
            status = self._library.LGBM_BoosterPredictForMat(
                self._booster,
                data.ctypes.data_as(ctypes.c_void_p),
                _FLOAT64,
                ctypes.c_int32(len(data)),
                ctypes.c_int32(data.shape[1]),
                1,  # row by row
                _RAW_SCORE,
                0,  # from the first round
                -1,  # to the last
                _PARAMETERS,
                ctypes.byref(length),
                raw.ctypes.data_as(ctypes.POINTER(ctypes.c_double)),
            )
            _check(status, "the booster")
        return calibrated(raw, self.schema.slope, self.schema.offset)

    def check_golden(self) -> int:
        """Ask the golden rows both ways and return how many there are.

        Raises:
            ArtefactError: there are none, or an answer differs by more than 1e-9.
        """
        return golden.check_answers(self, self._golden)


@lru_cache(maxsize=1)
def _libraries() -> tuple[ctypes.CDLL, ctypes.PyDLL]:
    """Load LightGBM's C library twice: for calls that may take long, and for short ones.

    `CDLL` gives the GIL away for a call, `PyDLL` keeps it: handing it over and back would cost more
    than a single row takes.
    """
    package = importlib.util.find_spec("lightgbm")
    folder = Path(package.origin or "").parent if package else Path()
    for name in ("lib/lib_lightgbm.so", "lib/lib_lightgbm.dylib", "bin/lib_lightgbm.dll"):
        if package and (folder / name).is_file():
            library = ctypes.CDLL(str(folder / name))
            library.LGBM_GetLastError.restype = ctypes.c_char_p
            return library, ctypes.PyDLL(str(folder / name))
    raise ArtefactError(
        "LightGBM's library is not installed; install the packages of requirements.txt"
    )


def _check(status: int, what: str) -> None:
    if status != 0:
        message = (_libraries()[0].LGBM_GetLastError() or b"no reason given").decode(
            errors="replace"
        )
        raise ArtefactError(f"LightGBM refuses {what}: {message}; train the model again")
