"""Views of a run while it trains: a live table, plain lines, TensorBoard. Each has `observe(record)`."""
