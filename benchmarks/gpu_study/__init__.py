"""The arms on a GPT of 34 M parameters on one GPU, in calls of nine minutes."""
