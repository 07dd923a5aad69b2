"""Mixture policies: pure rules from evidence to target weights."""
