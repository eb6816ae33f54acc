"""The drill's installation: a plan of seconds, and models that are alike and sicken by order."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from include.models.bundle import digest_of
from include.records.records import Model
from tests.builders.serving import NAME, YAML, Desk
from tests.builders.sick import Patient, alike_files, write_patient

FIRST, FULL = 1, 2  # steps of the plan: 5 and 25 %
OTHER_PINS = "sha256:of another installation"  # with which a model stays in its own process
# A release of seconds: shadow, 5 and 25 %, each as long as the traffic needs for its minimum.
STEPS = (
    "[{share: 0, bake: 4s, requests: 60, entities: 20, deadline: 60s}, "
    "{share: 5, bake: 4s, requests: 20, entities: 8, deadline: 60s}, "
    "{share: 25, bake: 4s, requests: 60, entities: 20, deadline: 60s}]"
)
# The same with time for evidence in the last step: what sickens there has not passed already.
LONG_LAST = STEPS.replace("{share: 25, bake: 4s", "{share: 25, bake: 40s")
PLAN: Mapping[str, str] = {
    "steps": STEPS,
    "beat": "15s",
    "resume": "40s",
    "watch": "5s",
    "thin": "hold",
    "online_share": "0.5",
}


class Clinic(Desk):
    """An installation whose models are alike, and sicken by order."""

    def __init__(self, home: Path, **settings: Any) -> None:
        self.plan = dict(PLAN)
        self.shift = 0.0
        self.patients: dict[int, Patient] = {}
        super().__init__(home, **settings)

    def write_use_case(self, **_: Any) -> None:
        """Write the use case's file, with the plan as it stands."""
        text = YAML.format(
            name=NAME, unknown="refuse", stale="refuse", store="score", last="2026-03-31"
        )
        release = ", ".join(f"{name}: {value}" for name, value in self.plan.items())
        text = re.sub(r"^release:.*\n", "", text, flags=re.MULTILINE)  # that of other tests
        (self.usecases / f"{NAME}.yaml").write_text(f"{text}release: {{{release}}}\n")

    def bundle(self, seed: int) -> dict[str, bytes]:
        """Return the files of a model, shifted where the next one is to be."""
        return alike_files(seed, self.shift)

    def bundle_digest(self, version: int) -> str:
        """Return the digest of the model of a version that was not shifted."""
        return digest_of(alike_files(version))

    def train(self, version: int, key: str = "2026-03-01", **changes: Any) -> Model:
        """Train a model whose Bento has a patient in it."""
        tag, self.patients[version] = write_patient(self.settings.home, version)
        return super().train(version, key, **{"bento_tag": tag, **changes})
