"""How a sample is put before the model: its code in batches, in the store and in the ledger.

`CHAIN` puts the rows a row continues before it, `CONTRAST` a related row; only the row's own answer is supervised, so a
sample trains the same tokens in every arrangement.
"""

SINGLE, CHAIN, CONTRAST = 0, 1, 2

ARRANGEMENTS = ("single", "chain", "contrast")
"""Names by code."""
