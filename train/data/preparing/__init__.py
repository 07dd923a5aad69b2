"""The passes of a preparation; `train.data.prepare` puts them together."""
