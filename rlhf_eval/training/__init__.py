"""Training policies against reward models with TRL."""
