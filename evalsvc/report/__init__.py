"""The run report: one self-contained page and its JSON twin, from the ledger alone."""
