"""The baseline: what a logistic regression makes of the rows that a model was fitted on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from include.models.encoding import Schema
from include.models.matrix import Numbers
from include.models.metrics import EMPTY

NEWTON_COLUMNS = 300


def baseline(
    matrix: Numbers,
    labels: Numbers,
    used: NDArray[np.bool_],
    asked: NDArray[np.bool_],
    schema: Schema,
) -> Numbers:
    """Return the scores that a logistic regression, fitted on the used rows, gives the asked rows.

    Categories are one-hot; numbers are standardised by the used rows and clipped to 10 deviations,
    a missing one is the mean and has a column of its own that says so. `matrix` is encoded by
    `schema`.
    """
    from scipy import sparse
    from sklearn.linear_model import LogisticRegression

    if not asked.any():
        return EMPTY
    rows = np.arange(len(matrix))
    blocks = []
    for position, feature in enumerate(schema.features):
        values = matrix[:, position]
        if feature.codes is not None:
            # One column a category: as a dense matrix it takes gigabytes where categories are many.
            ones = np.ones(len(values))
            codes = values.astype(np.int64)
            blocks.append(
                sparse.csr_array((ones, (rows, codes)), shape=(len(values), feature.unknown + 1))
            )
            continue
        missing = np.isnan(values)
        present = values[used & ~missing]
        center, scale = (
            (float(present.mean()), float(present.std())) if len(present) else (0.0, 0.0)
        )
        standardised = np.clip((values - center) / (scale or 1.0), -10, 10)
        blocks.append(sparse.csr_array(np.where(missing, 0.0, standardised)[:, None]))
        blocks.append(sparse.csr_array(missing.astype(np.float64)[:, None]))
    design = sparse.hstack(blocks, format="csr")
    fitted = design[used]
    # A column that is constant there teaches nothing, and may hold anything in the asked rows.
    varies = fitted.max(axis=0).toarray() > fitted.min(axis=0).toarray()
    design = design[:, np.flatnonzero(varies)]
    if design.shape[1] == 0:
        return np.full(int(asked.sum()), float(labels[used].mean()))
    # Newton's method needs a tenth of the time while its matrix (columns x columns) is small.
    solver = "newton-cholesky" if design.shape[1] <= NEWTON_COLUMNS else "lbfgs"
    model = LogisticRegression(C=1.0, solver=solver, tol=1e-6, max_iter=1000).fit(
        design[used], labels[used]
    )
    return np.asarray(model.predict_proba(design[asked])[:, 1], dtype=np.float64)
