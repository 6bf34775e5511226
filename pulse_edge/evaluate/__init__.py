"""Scores of bundles on tasks.

`task.py` says what a task is, `run.py` runs one in processes.
"""
