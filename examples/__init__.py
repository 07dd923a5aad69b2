"""Ready-made runs: each folder holds its own README, run configuration and, where it needs one, data or model maker."""
