"""List the stages in their one table: order, entry module, assets and target of each.

All else about the order is derived from it. A stage's name is that of its DAG. A new stage is one
line here, a package with its entry, and a DAG file.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """A stage's place in the flow.

    `module` is its entry, loaded by name: the one arrow upwards that no import shows. The event of
    the asset `takes` starts its DAG, which emits `gives`. `target` is the lowest target of a
    partition for which it is wanted. Nothing of the chain waits for a stage that is `beside` it.
    """

    name: str
    module: str
    takes: str | None
    gives: str
    target: str
    beside: bool = False


FLOW = (
    Step("ingest_data", "include.ingestion.ingest_data", None, "raw", "data"),
    Step("validate_data", "include.validation.validate_data", "raw", "curated", "data"),
    Step(
        "materialize_features",
        "include.features.materialize_features",
        "curated",
        "features",
        "data",
    ),
    Step("train_model", "include.training.train_model", "features", "candidate", "judged"),
    Step("evaluate_model", "include.evaluation.evaluate_model", "candidate", "judged", "judged"),
    Step("package_model", "include.packaging.package_model", "judged", "bento", "deployed"),
    Step("deploy_model", "include.deployment.deploy_model", "bento", "champion", "deployed"),
    Step("check_drift", "include.monitoring.check_drift", "judged", "drift", "judged", beside=True),
)
STAGES = tuple(step.name for step in FLOW)
CHAIN = tuple(step.name for step in FLOW if not step.beside)
DATA_STAGES = tuple(step.name for step in FLOW if step.target == "data")
UP_TO_JUDGED = tuple(step.name for step in FLOW if step.target != "deployed" and not step.beside)
RELEASING = tuple(step.name for step in FLOW if step.target == "deployed")
ENTRY = {step.name: step.module for step in FLOW}
ASSETS = {step.gives: step.name for step in FLOW}
ASSET_BEFORE = {step.name: step.takes for step in FLOW if step.takes is not None}
# Stages beside the chain, each with the stage that it follows.
BESIDE = {step.name: ASSETS[step.takes] for step in FLOW if step.beside and step.takes is not None}
RELEASE_ENDED = "release_ended"  # the asset of how releases end, which starts no stage
# DAGs of no stage whose runs have no partition.
UNPARTITIONED = ("import_predictions", "collect_garbage", "control_release")
GOAL = {step.target: step.name for step in FLOW if not step.beside}  # the last stage of each target


def asset_uri(use_case: str, asset: str) -> str:
    """Return the address of an asset of a use case."""
    return f"evergreen://{use_case}/{asset}"


def upstream(stage: str) -> tuple[str, ...]:
    """Return the stages before one; never the stage itself, on which a wait could deadlock."""
    if stage in BESIDE:
        return CHAIN[: CHAIN.index(BESIDE[stage]) + 1]
    return CHAIN[: CHAIN.index(stage)]
