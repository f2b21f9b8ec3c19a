"""The arms on a GPT of 34 M parameters on one GPU, in calls of nine minutes."""

import time

STARTED = time.monotonic()
"""Before torch is imported, which on a cold machine takes up to a minute of the call."""
