"""Encode and score: the one module that training, the Bento and the serving node share.

A **bundle** is a folder of exactly `model.txt` (booster text), `schema.json` (ordered features, types, category codes,
calibration, threshold, digest of the golden rows) and `golden.json` (rows with their scores). Its digest covers all three.
It is verified by digest before anything is loaded, and loaded from the very bytes that were verified. A damaged booster
text can kill the process that loads it, so `trial_load` tries a bundle in a child first.

LightGBM's C library is called directly: the Python package would import pandas and scikit-learn into the serving node.
Run as a module (`python -m include.models.predictor FOLDER DIGEST`) it loads a bundle and asks its golden rows.
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
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from include.errors import ArtefactError

FILES = ("model.txt", "schema.json", "golden.json")
TOLERANCE = 1e-9
MAX_BYTES = 1 << 30
_PICKLES = (".pkl", ".pickle", ".joblib", ".dill", ".npy", ".pt", ".pth", ".bin")
_FLOAT64, _RAW_SCORE = 1, 1  # C_API_DTYPE_FLOAT64, C_API_PREDICT_RAW_SCORE
_PARAMETERS = b"num_threads=1 verbosity=-1"
_NAN = float("nan")


class InvalidFeature(ValueError):
    """A row has no value, or one of a wrong type, for `feature`."""

    def __init__(self, feature: str, problem: str) -> None:
        super().__init__(f"feature {feature!r} {problem}")
        self.feature = feature
        self.problem = problem


@dataclass(frozen=True)
class Feature:
    """One input of a model; `codes` holds the categories that training saw (type string only)."""

    name: str
    type: str
    codes: Mapping[str, int] | None = None
    missing: int = -1
    unknown: int = -1


@dataclass(frozen=True)
class Schema:
    """What a booster's columns mean and what its raw score means: `1 / (1 + exp(-(slope * raw + offset)))`."""

    use_case: str
    feature_set: str
    features: tuple[Feature, ...]
    slope: float
    offset: float
    threshold: float
    golden: str

    @property
    def names(self) -> list[str]:
        """The features in the order of the booster's columns."""
        return [feature.name for feature in self.features]

    @property
    def categorical(self) -> list[int]:
        """Positions of the features that hold category codes."""
        return [index for index, feature in enumerate(self.features) if feature.codes is not None]

    def to_json(self) -> str:
        """Return the text of schema.json; equal schemas give equal text."""
        features = [
            {"name": f.name, "type": f.type}
            | ({} if f.codes is None else {"codes": dict(f.codes), "missing": f.missing, "unknown": f.unknown})
            for f in self.features
        ]
        content = {
            "format": 1,
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
                Feature(f["name"], f["type"], f.get("codes"), f.get("missing", -1), f.get("unknown", -1))
                for f in content["features"]
            )
            slope, offset = float(content["calibration"]["slope"]), float(content["calibration"]["offset"])
            threshold = float(content["threshold"])
            if not features or not all(map(math.isfinite, (slope, offset, threshold))):
                raise ValueError("no features, or a number that is not finite")
            return cls(content["use_case"], content["feature_set"], features, slope, offset, threshold, content["golden"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtefactError(f"schema.json is no schema that this version reads ({error}); train the model again") from error


def encoder(feature: Feature) -> Callable[[object], float]:
    """Return the function that turns one value of a feature into the number that the booster sees.

    Null, NaN and infinity are missing. An unseen category gets the unknown code. Other types are refused.
    """
    name = feature.name
    if feature.codes is not None:
        table: dict[object, float] = {text: float(code) for text, code in feature.codes.items()}
        table[None] = float(feature.missing)
        unknown = float(feature.unknown)

        def category(value: object) -> float:
            if value is None or type(value) is str:
                return table.get(value, unknown)
            if isinstance(value, str):
                return table.get(str(value), unknown)
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
    """Return the booster's matrix of rows, or of columns by name: one row a row, one column a feature of the schema.

    Raises:
        InvalidFeature: a feature is missing from a row, or a value has a wrong type.
    """
    size = len(next(iter(rows.values()), ())) if isinstance(rows, Mapping) else len(rows)
    matrix = np.empty((size, len(schema.features)), dtype=np.float64)
    for position, feature in enumerate(schema.features):
        values: Sequence[object] | NDArray[np.generic]
        try:
            values = rows[feature.name] if isinstance(rows, Mapping) else [row[feature.name] for row in rows]
        except KeyError:
            raise InvalidFeature(feature.name, "is missing; send null where it is not known") from None
        if isinstance(values, np.ndarray) and values.dtype.kind in "fiub" and feature.codes is None:
            column = values.astype(np.float64)
            column[~np.isfinite(column)] = np.nan
            matrix[:, position] = column
        else:
            code = encoder(feature)
            matrix[:, position] = [code(value) for value in values]
    return matrix


def digest_of(files: Mapping[str, bytes]) -> str:
    """Return the digest of a bundle's files, given by name."""
    total = hashlib.sha256()
    for name in FILES:
        total.update(f"{name}\0{len(files[name])}\0".encode())
        total.update(files[name])
    return "sha256:" + total.hexdigest()


def read_bundle(folder: str | Path) -> dict[str, bytes]:
    """Return the bytes of a bundle's files, opening nothing that is not allowed to be there.

    Raises:
        ArtefactError: a file is missing, is a link, or is of a type that is never opened (pickle and its kin).
    """
    folder = Path(folder)
    if folder.is_symlink() or not folder.is_dir():
        raise ArtefactError(f"{folder} is no folder of a model bundle; train or import the model again")
    for entry in sorted(folder.iterdir()):
        status = entry.lstat()
        if entry.suffix.lower() in _PICKLES:
            raise ArtefactError(f"{entry} is of a type that can run code when it is opened; models are {', '.join(FILES)} only")
        if entry.name not in FILES:
            raise ArtefactError(f"{entry} does not belong in a model bundle; only {', '.join(FILES)} do. Remove it")
        if not stat.S_ISREG(status.st_mode):
            raise ArtefactError(f"{entry} is a link or no regular file; a model bundle holds plain files. Replace it by the file")
        if status.st_size > MAX_BYTES:
            raise ArtefactError(f"{entry} has {status.st_size} bytes, more than a model may have ({MAX_BYTES})")
    files: dict[str, bytes] = {}
    for name in FILES:
        try:
            descriptor = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW)
            with os.fdopen(descriptor, "rb") as file:
                files[name] = file.read()
        except FileNotFoundError:
            raise ArtefactError(f"{folder / name} is missing; the bundle is not whole. Train or import the model again") from None
        except OSError as error:
            raise ArtefactError(f"{folder / name} cannot be read ({error.strerror}); check its permissions") from error
    return files


def bundle_digest(folder: str | Path) -> str:
    """Return the digest of the bundle in a folder."""
    return digest_of(read_bundle(folder))


def verify_bundle(folder: str | Path, digest: str) -> dict[str, bytes]:
    """Return the bytes of a bundle after its digest was found to be the recorded one; nothing is loaded.

    Raises:
        ArtefactError: the bundle is not the one that was recorded, or is not whole.
    """
    files = read_bundle(folder)
    found = digest_of(files)
    if found != digest:
        raise ArtefactError(f"{folder} has digest {found}, recorded is {digest}; it was changed. Restore it, or train again")
    return files


class Predictor:
    """A model in memory. Safe to share between threads: a lock guards the single-row buffers."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.digest = digest_of(files)
        self.schema = Schema.from_json(files["schema.json"])
        golden = "sha256:" + hashlib.sha256(files["golden.json"]).hexdigest()
        if golden != self.schema.golden:
            raise ArtefactError("golden.json is not the one that schema.json names; train the model again")
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
            library.LGBM_BoosterLoadModelFromString(files["model.txt"], ctypes.byref(count), ctypes.byref(self._booster)),
            "model.txt",
        )
        _check(library.LGBM_BoosterGetNumFeature(self._booster, ctypes.byref(count)), "model.txt")
        if count.value != width:
            raise ArtefactError(f"model.txt reads {count.value} features, schema.json names {width}; train the model again")
        _check(library.LGBM_BoosterGetNumClasses(self._booster, ctypes.byref(count)), "model.txt")
        if count.value != 1:
            raise ArtefactError(f"model.txt gives {count.value} scores a row; only binary models are served")
        _check(
            quick.LGBM_BoosterPredictForMatSingleRowFastInit(
                self._booster, _RAW_SCORE, 0, -1, _FLOAT64, ctypes.c_int32(width), _PARAMETERS, ctypes.byref(self._fast)
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
            raise InvalidFeature(str(error.args[0]), "is missing; send null where it is not known") from None
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
                self._booster, data.ctypes.data_as(ctypes.c_void_p), _FLOAT64, ctypes.c_int32(len(data)),
                ctypes.c_int32(data.shape[1]), 1, _RAW_SCORE, 0, -1, _PARAMETERS,
                ctypes.byref(length), raw.ctypes.data_as(ctypes.POINTER(ctypes.c_double)),
            )  # fmt: skip
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
            raise ArtefactError("golden.json holds no rows to ask; a model that cannot be checked is not served")
        batch = self.many(rows)
        for number, (row, want) in enumerate(zip(rows, expected, strict=True)):
            for answer in (self.one(row), float(batch[number])):
                if not abs(answer - want) <= TOLERANCE:
                    raise ArtefactError(f"golden row {number}: the model answers {answer!r}, recorded is {want!r}; not served")
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
            env=environment, cwd=root, capture_output=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise ArtefactError(f"{folder}: the model did not answer its golden rows in {timeout:g} s; it is not served") from None
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        raise ArtefactError(f"{folder}: loading the model killed the trial process ({name}); the file is damaged. Train it again")
    if child.returncode != 0 or not child.stdout.startswith(b"golden "):
        # LightGBM prints what it found in a damaged file, whatever bytes those are.
        reason = (child.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]
        raise ArtefactError(f"{folder}: the trial load failed: {reason}")


@lru_cache(maxsize=1)
def pins() -> str:
    """Return the digest of what must be equal for a bundle to load in another process of ours."""
    content = {
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        "numpy": np.__version__,
        "lightgbm": importlib.metadata.version("lightgbm"),
        "predictor": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
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
    """Load LightGBM's C library twice: for calls that may take long, and for those of microseconds, which keep the GIL."""
    found = importlib.util.find_spec("lightgbm")
    folder = Path(found.origin or "").parent if found else Path()
    for name in ("lib/lib_lightgbm.so", "lib/lib_lightgbm.dylib", "bin/lib_lightgbm.dll"):
        if found and (folder / name).is_file():
            library = ctypes.CDLL(str(folder / name))
            library.LGBM_GetLastError.restype = ctypes.c_char_p
            return library, ctypes.PyDLL(str(folder / name))
    raise ArtefactError("LightGBM's library is not installed; install the packages of requirements.txt")


def _check(status: int, what: str) -> None:
    if status != 0:
        message = (_libraries()[0].LGBM_GetLastError() or b"no reason given").decode(errors="replace")
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
