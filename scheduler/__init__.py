"""The decision: tasks, signals, heat, policies, guards, stages, plan, ledger, replay.

Pure (stdlib, numpy, scipy, pydantic) but for `scheduler.actor`.
"""
