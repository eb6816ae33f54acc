"""Benchmarks: what the stages and the orchestration cost, as ratios within one run.

`python -m tests.benchmarks --help`.
"""
