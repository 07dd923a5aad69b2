"""A dozen tiny symbol tasks that a two-layer model learns in about a minute on one core."""
