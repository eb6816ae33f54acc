"""Evergreen: as-of correct, fail-closed model pipelines.

One package a stage; Airflow is imported by `orchestration` alone.
"""
