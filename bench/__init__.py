"""Benchmarks: ours beside its peers in one process, interleaved. Run one with `python -m bench.NAME [--quick]`."""
