"""State of an optimizer: counters, checks, checkpoints."""
