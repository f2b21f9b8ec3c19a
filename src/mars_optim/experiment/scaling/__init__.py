"""Forecast of an arm's gain at a size and budget that were not run."""
