"""Mixture policies against each other at equal compute: `python -m bench.policies` (see `bench.policies.__main__`)."""
