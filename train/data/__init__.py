"""Data: read, verify, quarantine, split, tokenise once."""
