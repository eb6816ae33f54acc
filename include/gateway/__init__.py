"""The serving node: what users call. One process: a raw ASGI application, and a reconciler that follows the routing rows.

It imports no feast, mlflow, pandas, scikit-learn or airflow. `serve` runs it until SIGTERM or Ctrl-C.
"""

from __future__ import annotations

from include.config.settings import Settings


def serve(settings: Settings) -> None:
    """Run the serving node until it is told to stop.

    Raises:
        ConfigError: its port is taken.
    """
    from include.gateway.server import run

    run(settings)
