"""The mixture stream: which row is trained at which step, as a pure function."""
