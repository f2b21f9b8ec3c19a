"""Small adapters for hosts that need one; no host is imported before it is used."""
