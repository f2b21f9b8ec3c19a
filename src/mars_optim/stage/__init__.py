"""Stage 2 of the way into production: a canary from the AdamW checkpoint."""
