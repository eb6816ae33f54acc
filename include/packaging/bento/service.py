"""The service inside every Bento: one row in, one score out, by the shipped model and code.

bentoml serve TAG
curl -H 'content-type: application/json' -d '{"features": {...}}' http://127.0.0.1:3000/predict
"""

from __future__ import annotations

from typing import Any

import bentoml
from pydantic import BaseModel, ConfigDict, Field

from include.models.encoding import InvalidFeature
from include.models.loading import load_model


class Pinned(BaseModel):
    """What the Bento was built with: its model's exact tag, and the digest that it must have."""

    model: str
    digest: str
    version: int


class Row(BaseModel):
    """A question: every feature of the model by name, null where it is not known."""

    model_config = ConfigDict(extra="forbid")
    features: dict[str, Any] = Field(max_length=1000)


class Score(BaseModel):
    """An answer."""

    score: float
    positive: bool
    model_version: int


pinned = bentoml.use_arguments(Pinned)


@bentoml.service(
    name="scorer", workers=1, traffic={"timeout": 10}, tracing={"excluded_urls": [".*"]}
)
class Scorer:
    """Scores rows; the model is verified by its digest before it is loaded."""

    stored = bentoml.models.BentoModel(pinned.model)

    def __init__(self) -> None:
        self.model = load_model(self.stored.path_of("bundle"), pinned.digest)

    @bentoml.api(route="/predict")  # type: ignore[untyped-decorator]
    def predict(self, row: Row, /) -> Score:
        """Score one row; a wrong or missing feature is named."""
        try:
            score = self.model.one(row.features)
        except InvalidFeature as error:
            raise bentoml.exceptions.InvalidArgument(str(error)) from None
        return Score(
            score=score, positive=score >= self.model.threshold, model_version=pinned.version
        )
