"""Views of a run while it trains: a live table, plain lines, TensorBoard, trackers. Each has `observe(record)`."""
