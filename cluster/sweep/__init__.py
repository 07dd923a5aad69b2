"""`taskheat sweep`: many runs of one configuration, what they have in common trained once.

    SWEEP.yaml ─ config ─► space: trials ─► sharing: trunks and forks ─► tuning (Ray Tune) ─► results ─► page, winner
                                                                             │ one trial = one run (trainable)

`config` is what a person writes, `space` and `sharing` are pure, `trainable` runs in Tune's processes, `execute` ties
them together. A trial is an ordinary run directory, so everything that works on a run works on a trial.
"""
