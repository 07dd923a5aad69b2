"""The judgement: generation, scorers, automatic reviewer, evaluation of a snapshot, report."""
