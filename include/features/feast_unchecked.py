"""Import Feast without its checks of types at run time; to be imported before `feast` itself.

Feast decorates some classes with typeguard, which parses and compiles the source of each of their
methods anew when they are imported: two thirds of the five seconds that the import costs, in each
process of a stage. The checks are meant to be off outside of development (typeguard leaves them
out under `python -O`); mypy checks what we give to Feast.
"""

from __future__ import annotations

from typing import Any

import typeguard


def _as_it_is(target: Any = None, **_: Any) -> Any:
    """Return what is decorated; of a decorator with options a decorator that does so."""
    return _as_it_is if target is None else target


_checked = typeguard.typechecked
typeguard.typechecked = _as_it_is
try:
    import feast  # noqa: F401
finally:
    typeguard.typechecked = _checked
