"""Around an optimizer: migrate to MARS and back, wrap another one, step inside backward."""
