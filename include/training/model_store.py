"""A model's files under HOME/models: its bundle, and the sample that drift is measured against."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from include.features import population
from include.features.feature_sets import FeatureSet
from include.files import written_aside
from include.models import bundle, mlflow_registry
from include.pipeline.stage import StageContext
from include.pipeline.training_outputs import ReferenceSample
from include.training import splits


def store_bundle(context: StageContext, files: Mapping[str, bytes], model_digest: str) -> Path:
    """Write a bundle under its digest and return its folder.

    What killed trainings of the partition have left is removed.

    Raises:
        ArtefactError: a bundle is there already, with other bytes than its digest says.
    """
    use_case = context.use_case.name
    home = context.settings.home / "models" / mlflow_registry.name_of(use_case) / context.key
    folder = home / model_digest.removeprefix("sha256:")[:16]
    context.held.check()
    home.mkdir(parents=True, exist_ok=True)
    # By name: in a home that was moved, what is on record lies at the same place of another one.
    recorded = {
        Path(model.bundle).parent.name
        for model in context.records.models.of(use_case)
        if model.partition == context.key
    }
    for other in home.iterdir():
        if other.name not in recorded:
            shutil.rmtree(other)
    if (folder / "bundle").is_dir():
        bundle.verify_bundle(folder / "bundle", model_digest)
    else:
        # A folder, put in place whole: who finds it finds every file. The token tells apart two
        # runs of the partition, the older of which has lost its lease and does not know yet.
        scratch = home / f".{folder.name}.{context.held.token}"
        (scratch / "bundle").mkdir(parents=True)
        for name, content in files.items():
            (scratch / "bundle" / name).write_bytes(content)
        scratch.rename(folder)
    return folder


def store_reference(
    context: StageContext,
    feature_set: FeatureSet,
    versions: Mapping[str, int | None],
    folder: Path,
) -> ReferenceSample:
    """Keep a sample of the features of all who are there at as_of beside the bundle.

    Not only of those who have a label: later partitions are compared with everyone.
    """
    use_case = context.use_case
    rows = population.population_at(
        context.lake, use_case, feature_set, context.as_of, versions=versions
    )
    entities = rows.column(use_case.entity.key).to_pylist()
    kept = splits.subsample(
        entities,
        np.zeros(len(rows), dtype=np.int64),  # an entity is there once: its moment tells nothing
        limit=use_case.monitoring.sample,
        seed=use_case.training.seed,
    )
    path = folder / "reference.parquet"
    with written_aside(path) as temporary:
        pq.write_table(rows.take(pa.array(kept)), temporary, compression="zstd")
    return ReferenceSample(
        path=str(path), rows=len(kept), entities=len(rows), as_of=context.as_of.isoformat()
    )
