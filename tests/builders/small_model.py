"""A small frame with every type of feature, and the use case that it is of."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from include.config.use_case_file import parse
from tests.builders.judging import KNOBS, YAML, simulate

USE_CASE = parse(YAML.format(**{**KNOBS, "more": ", member: bool"}))


def new_frame() -> pa.Table:
    """Return rows with gaps in every feature, sorted by time."""
    columns = simulate(20, 1)
    generator = np.random.default_rng(2)
    member = [
        None if value < 0.1 else value < 0.5 for value in generator.random(len(columns["label"]))
    ]
    region = [None if index % 17 == 0 else value for index, value in enumerate(columns["region"])]
    return pa.table(
        {
            "customer_id": pa.array(columns["customer_id"], pa.int64()),
            "event_timestamp": pa.array(columns["event_timestamp"], pa.timestamp("us", tz="UTC")),
            "label": columns["label"],
            "income": pa.array(columns["income"], pa.float64()),
            "visits": pa.array(
                columns["visits"], pa.int64(), mask=generator.random(len(region)) < 0.1
            ),
            "region": pa.array(region, pa.string()),
            "member": pa.array(member, pa.bool_()),
        }
    )
