"""A model's files in the store: its bundle, and the sample that drift is measured against."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from include.artefacts.address import BUNDLES, REFERENCES
from include.features import population
from include.features.feature_sets import FeatureSet
from include.pipeline.stage import StageContext
from include.pipeline.training_outputs import ReferenceSample
from include.training import splits

REFERENCE = "reference.parquet"


class StoredBundle(NamedTuple):
    """A bundle that is in the store: its address, a folder of this machine that holds it, and the
    path that nodes of the version before read.
    """

    uri: str
    folder: Path
    path: str


def store_bundle(context: StageContext, files: Mapping[str, bytes]) -> StoredBundle:
    """Put a bundle into the store; one that is there with these very bytes stays.

    Raises:
        Unavailable: the store cannot be written.
    """
    context.held.check()
    uri = context.store.put(BUNDLES, context.use_case.name, files)
    folder = context.store.get(uri)
    # Of an object store there is no path that another machine could read.
    return StoredBundle(uri, folder, str(folder) if context.store.is_local else uri)


def store_reference(
    context: StageContext, feature_set: FeatureSet, versions: Mapping[str, int | None]
) -> ReferenceSample:
    """Keep a sample of the features of all who are there at as_of.

    Not only of those who have a label: later partitions are compared with everyone.

    Raises:
        Unavailable: the store cannot be written.
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
    content = io.BytesIO()
    pq.write_table(rows.take(pa.array(kept)), content, compression="zstd")
    uri = context.store.put(REFERENCES, use_case.name, {REFERENCE: content.getvalue()})
    return ReferenceSample(
        uri=uri, rows=len(kept), entities=len(rows), as_of=context.as_of.isoformat()
    )
