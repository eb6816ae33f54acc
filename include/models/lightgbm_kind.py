"""LightGBM as a kind of model: trees fitted on encoded rows, calibrated by Platt's sigmoid.

Shipped in every Bento of this kind. What only training needs is imported by `fit`, and is not
shipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING

from include.models.predictor import Predictor

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from include.config.use_case import UseCase
    from include.models.kinds import Fitted, ModelKind


class LightGBM:
    """The kind of every model so far."""

    name = "lightgbm"
    libraries: tuple[str, ...] = ("lightgbm", "scikit-learn", "scipy", "numpy")
    payload: tuple[str, ...] = ("model.txt",)
    requirements: tuple[str, ...] = ("lightgbm", "numpy")
    modules: tuple[str, ...] = ("include/models/lightgbm_kind.py", "include/models/predictor.py")

    def fit(
        self, frame: pa.Table, parts: NDArray[np.int8], use_case: UseCase, feature_set: str
    ) -> Fitted:
        """Fit a booster; see `lightgbm_fitting`."""
        from include.models import lightgbm_fitting

        return lightgbm_fitting.fit(frame, parts, use_case, feature_set)

    def load(self, files: Mapping[str, bytes]) -> Predictor:
        """Load a booster into LightGBM's C library."""
        return Predictor(files)

    def parameter_problems(
        self, params: Mapping[str, float | int | str | bool], features: int
    ) -> Iterator[tuple[str, str]]:
        """Yield what LightGBM, and Evergreen, refuse of parameters."""
        from include.models import lightgbm_fitting, lightgbm_parameters

        return lightgbm_parameters.problems(params, lightgbm_fitting.DEFAULTS, features)

    def save_for_mlflow(self, bundle: Path, target: Path, *, digest: str) -> None:
        """Write the booster in MLflow's flavour `lightgbm`.

        It takes encoded rows and gives raw scores, as its signature says.
        """
        import lightgbm
        import mlflow.lightgbm
        from mlflow.models import ModelSignature
        from mlflow.types import ColSpec, Schema

        from include.models import encoding

        schema = encoding.Schema.from_json((bundle / "schema.json").read_bytes())
        mlflow.lightgbm.save_model(
            lightgbm.Booster(model_file=str(bundle / "model.txt")),
            str(target),
            signature=ModelSignature(
                inputs=Schema([ColSpec("double", name) for name in schema.names]),
                outputs=Schema([ColSpec("double", "raw_score")]),
            ),
            pip_requirements=[f"{name}=={version(name)}" for name in self.requirements],
            metadata={
                "inputs": "encoded by include.models.encoding.encode; see bundle/schema.json",
                "model_digest": digest,
            },
        )


KIND: ModelKind = LightGBM()
