"""A page about training runs: their curves, what the best step gets wrong, what they saw."""
