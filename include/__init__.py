"""Evergreen: as-of correct, fail-closed model pipelines. One module a stage; none below the edge imports Airflow."""
