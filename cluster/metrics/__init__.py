"""A run's figures for Prometheus, and the Grafana dashboard that draws them.

The driver sets them through `ray.util.metrics`; the agent of its node serves them, with Ray's own, at the node's
metrics port, prefixed `ray_`. They show the run live; what must be kept is in the ledger.
"""
