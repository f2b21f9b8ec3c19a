"""Does it pay? Everything that needs more than torch, in the order in which data flow."""
