"""The topology: who runs where and how they are wired; the command line."""
