"""What an optimizer keeps of its parameters: counters, checks, checkpoints."""
