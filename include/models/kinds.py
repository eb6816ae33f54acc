"""Kinds of models: what training, packaging, judgement and the serving node ask of any of them.

A kind fits a frame, gives a bundle, loads it again and answers rows. Stages ask a kind by its name
and never a library's classes, so a second one can stand beside LightGBM: a module with a `KIND`,
and its name in `KINDS`. A bundle says in `schema.json` which kind it is of; one that says nothing
is of LightGBM.

This module is shipped in every Bento and imported by the node: it imports nothing at run time.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from include.errors import ArtefactError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from include.config.use_case import UseCase
    from include.models.encoding import Columns, Schema

DEFAULT = "lightgbm"
KINDS = {DEFAULT: "include.models.lightgbm_kind"}  # the module that holds its KIND


class ServedModel(Protocol):
    """A model in memory, loaded from the bytes of a bundle that were verified."""

    digest: str
    schema: Schema

    @property
    def features(self) -> list[str]:
        """The features that a row must hold."""

    @property
    def threshold(self) -> float:
        """The score from which the decision is positive."""

    def one(self, row: Mapping[str, object]) -> float:
        """Return the probability of one row; further keys are ignored.

        Raises:
            InvalidFeature: a feature is missing or has a wrong type.
        """

    def many(self, rows: Sequence[Mapping[str, object]] | Columns) -> NDArray[np.float64]:
        """Return the probability of every row, in order."""

    def check_golden(self) -> int:
        """Ask the golden rows of the bundle both ways and return how many there are.

        Raises:
            ArtefactError: there are none, or an answer is not the recorded one.
        """


@dataclass(frozen=True)
class Fitted:
    """A bundle in memory, with what is to be known of its making.

    `rounds` is how often the fit was repeated or improved, 0 where it is made at once; `weights`
    the share of each feature in what the model has learnt, empty where the kind knows none.
    """

    files: dict[str, bytes]
    rounds: int
    params: dict[str, Any]
    metrics: dict[str, float]
    weights: dict[str, float] = field(default_factory=dict)

    @property
    def predictor(self) -> ServedModel:
        """The model, loaded as serving would load it."""
        return load_files(self.files)


class ModelKind(Protocol):
    """One way to make a model, and to ask it.

    `libraries` are those whose versions can change what a fit gives. `payload` names the files of a
    bundle that only this kind reads, beside `schema.json` and `golden.json`. `requirements` are the
    libraries that loading needs, and `modules` the source files that it adds to those which every
    kind loads by: both are shipped with a bundle, and pinned. Importing a kind is light; `fit`
    imports what it needs.
    """

    name: str
    libraries: tuple[str, ...]
    payload: tuple[str, ...]
    requirements: tuple[str, ...]
    modules: tuple[str, ...]

    def fit(
        self, frame: pa.Table, parts: NDArray[np.int8], use_case: UseCase, feature_set: str
    ) -> Fitted:
        """Fit a model; equal frames give equal bundles, byte for byte.

        `parts` has a number a row: 0 trains, 1 tunes, 2 is only measured. Of the metrics the gate
        reads `yardstick_auc`: what a baseline reaches on part 2.

        Raises:
            ConfigError: `training.params` cannot be trained with.
        """

    def load(self, files: Mapping[str, bytes]) -> ServedModel:
        """Load a model from a bundle's files.

        Raises:
            ArtefactError: they are no model that this kind reads.
        """

    def parameter_problems(
        self, params: Mapping[str, float | int | str | bool], features: int
    ) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with `training.params` for so many features, with the remedy.

        Each is a pair of the parameter (an empty text where it is the combination) and what.
        """

    def save_for_mlflow(self, bundle: Path, target: Path, *, digest: str) -> None:
        """Write the model of a bundle as a folder in MLflow's own form.

        It is for people and their tools; nothing of ours loads it.
        """


def kind_of(name: str) -> ModelKind:
    """Return a kind by its name.

    Raises:
        ArtefactError: there is none of this name.
    """
    module = KINDS.get(name)
    if module is None:
        raise ArtefactError(
            f"{name!r} is no kind of model that this version knows (it knows {', '.join(KINDS)}); "
            "train the model again, or use the version of Evergreen that made it"
        )
    kind: ModelKind = importlib.import_module(module).KIND
    return kind


def every_kind() -> list[ModelKind]:
    """Return all kinds."""
    return [kind_of(name) for name in KINDS]


def serving_libraries() -> tuple[str, ...]:
    """Return the libraries by which a model of any kind answers, each once."""
    names = [library for kind in every_kind() for library in kind.requirements]
    return tuple(dict.fromkeys(names))


def kind_in(schema: bytes) -> ModelKind:
    """Return the kind of a bundle by the bytes of its `schema.json`.

    Bytes that are no JSON object count as LightGBM's: the digest, or the kind itself, refuses them
    with a better reason.

    Raises:
        ArtefactError: the bundle is of a kind that is not known.
    """
    try:
        content = json.loads(schema)
    except ValueError:
        content = None
    return kind_of(str(content.get("kind", DEFAULT)) if isinstance(content, dict) else DEFAULT)


def load_files(files: Mapping[str, bytes]) -> ServedModel:
    """Load the model of a bundle's files, by the kind that its schema names.

    Raises:
        ArtefactError: the kind is not known, or refuses the files.
    """
    return kind_in(files["schema.json"]).load(files)
