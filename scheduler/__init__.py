"""The decision: tasks, signals, heat, policies, guards, stages, plan, ledger, replay. Pure but for `scheduler.actor`."""
