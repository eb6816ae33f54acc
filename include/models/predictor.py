"""Score: with `encoding` and `bundle` all that training, the Bento and the serving node share.

A **bundle** is a folder of exactly `model.txt` (booster text), `schema.json` (ordered features,
types, category codes, calibration, threshold, digest of the golden rows) and `golden.json` (rows
with their scores). Its digest covers all three. It is verified by digest before anything is loaded,
and loaded from the very bytes that were verified. A damaged booster text can kill the process that
loads it, so `trial_load` tries a bundle in a child first.

LightGBM's C library is called directly: the Python package would import pandas and scikit-learn
into the serving node. Run as a module (`python -m include.models.predictor FOLDER DIGEST`) it loads
a bundle and asks its golden rows.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from include.errors import ArtefactError
from include.models import bundle, encoding
from include.models.bundle import digest_of, verify_bundle
from include.models.encoding import Columns, InvalidFeature, Schema, encode, encoder

TOLERANCE = 1e-9
_CODE = (bundle.__file__, encoding.__file__, __file__)  # what turns a bundle and a row into a score
_FLOAT64, _RAW_SCORE = 1, 1  # C_API_DTYPE_FLOAT64, C_API_PREDICT_RAW_SCORE
_PARAMETERS = b"num_threads=1 verbosity=-1"


class Predictor:
    """A model in memory. Safe to share between threads: a lock guards the single-row buffers."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.digest = digest_of(files)
        self.schema = Schema.from_json(files["schema.json"])
        golden = "sha256:" + hashlib.sha256(files["golden.json"]).hexdigest()
        if golden != self.schema.golden:
            raise ArtefactError(
                "golden.json is not the one that schema.json names; train the model again"
            )
        self._golden = files["golden.json"]
        self._encoders = [(feature.name, encoder(feature)) for feature in self.schema.features]
        self._lock = threading.Lock()
        self._library, self._quick = library, quick = _libraries()
        self._booster = ctypes.c_void_p()
        self._fast = ctypes.c_void_p()
        width = len(self._encoders)
        self._row: Any = (ctypes.c_double * width)()
        self._score = (ctypes.c_double * 1)()
        self._length = ctypes.c_int64()
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
                0,
                -1,
                _FLOAT64,
                ctypes.c_int32(width),
                _PARAMETERS,
                ctypes.byref(self._fast),
            ),
            "model.txt",
        )

    @classmethod
    def load(cls, folder: str | Path, digest: str) -> Predictor:
        """Verify a bundle and load it from the bytes that were verified.

        Raises:
            ArtefactError: the bundle is not the recorded one, or LightGBM refuses it.
        """
        return cls(verify_bundle(folder, digest))

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
        with self._lock:
            self._row[:] = values
            status = self._quick.LGBM_BoosterPredictForMatSingleRowFast(
                self._fast, self._row, ctypes.byref(self._length), self._score
            )
            raw = self._score[0]
        _check(status, "the booster")
        return _sigmoid(self.schema.slope * raw + self.schema.offset)

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
                1,
                _RAW_SCORE,
                0,
                -1,
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
        golden = json.loads(self._golden)
        rows, expected = golden["rows"], golden["scores"]
        if not rows or len(rows) != len(expected):
            raise ArtefactError(
                "golden.json holds no rows to ask; a model that cannot be checked is not served"
            )
        batch = self.many(rows)
        for number, (row, want) in enumerate(zip(rows, expected, strict=True)):
            for answer in (self.one(row), float(batch[number])):
                if not abs(answer - want) <= TOLERANCE:
                    raise ArtefactError(
                        f"golden row {number}: the model answers {answer!r}, recorded is "
                        f"{want!r}; not served"
                    )
        return len(rows)


def trial_load(folder: str | Path, digest: str, *, timeout: float = 60.0) -> None:
    """Verify a bundle, then load it and ask its golden rows in a fresh process.

    Raises:
        ArtefactError: it is not the recorded one, or the child refused it, died of it or hung.
    """
    verify_bundle(folder, digest)
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    try:
        child = subprocess.run(
            [sys.executable, "-m", "include.models.predictor", str(Path(folder).resolve()), digest],
            env=environment,
            cwd=root,
            capture_output=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise ArtefactError(
            f"{folder}: the model did not answer its golden rows in {timeout:g} s; it is not served"
        ) from None
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        raise ArtefactError(
            f"{folder}: loading the model killed the trial process ({name}); the file is damaged. "
            "Train it again"
        )
    if child.returncode != 0 or not child.stdout.startswith(b"golden "):
        # LightGBM prints what it found in a damaged file, whatever bytes those are.
        reason = (
            child.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        )[-1]
        raise ArtefactError(f"{folder}: the trial load failed: {reason}")


@lru_cache(maxsize=1)
def serving_pins() -> str:
    """Return the digest of what must be equal for a bundle to load in another process of ours."""
    content = {
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "numpy": np.__version__,
        "lightgbm": importlib.metadata.version("lightgbm"),
        **{path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in map(Path, _CODE)},
    }
    return "sha256:" + hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def calibrated(raw: NDArray[np.float64], slope: float, offset: float) -> NDArray[np.float64]:
    """Return the probabilities of raw scores."""
    with np.errstate(over="ignore"):
        result: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-(slope * raw + offset)))
    return result


def _sigmoid(value: float) -> float:
    if value >= 0:
        return 1.0 / (1.0 + math.exp(-value))
    tail = math.exp(value)
    return tail / (1.0 + tail)


@lru_cache(maxsize=1)
def _libraries() -> tuple[ctypes.CDLL, ctypes.PyDLL]:
    """Load LightGBM's C library twice: for calls that may take long, and for those of
    microseconds, which keep the GIL.
    """
    found = importlib.util.find_spec("lightgbm")
    folder = Path(found.origin or "").parent if found else Path()
    for name in ("lib/lib_lightgbm.so", "lib/lib_lightgbm.dylib", "bin/lib_lightgbm.dll"):
        if found and (folder / name).is_file():
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


def _main(arguments: Sequence[str]) -> int:
    try:
        count = Predictor.load(arguments[0], arguments[1]).check_golden()
    except ArtefactError as error:
        sys.stderr.write(f"{error}\n")
        return ArtefactError.exit_code
    sys.stdout.write(f"golden {count}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(_main(sys.argv[1:]))
