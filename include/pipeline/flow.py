"""The pipeline's order: its stages, the DAG and the entry module of each, and how far each target goes."""

from __future__ import annotations

CHAIN = ("ingestion", "validation", "features", "training", "evaluation", "bento", "deployment")
DAG_OF = {
    "ingestion": "ingest_data",
    "validation": "validate_data",
    "features": "materialize_features",
    "training": "train_model",
    "evaluation": "evaluate_model",
    "bento": "package_model",
    "deployment": "deploy_model",
    "drift": "check_drift",
}
# Loaded by name: the one arrow upwards that no import shows.
ENTRY = {
    "ingestion": "include.ingestion.ingest_data",
    "validation": "include.validation.validate_data",
    "features": "include.features.materialize_features",
    "training": "include.training.train_model",
    "evaluation": "include.evaluation.evaluate_model",
    "bento": "include.packaging.package_model",
    "deployment": "include.deployment.deploy_model",
    "drift": "include.monitoring.check_drift",
}
STAGES = tuple(ENTRY)
GOAL = {"data": "features", "judged": "evaluation", "deployed": "deployment"}


def upstream(stage: str) -> tuple[str, ...]:
    """Return the stages before one; never the stage itself, on which a wait could deadlock."""
    return CHAIN[: CHAIN.index("bento" if stage == "drift" else stage)]
