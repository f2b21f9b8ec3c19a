"""Runs and trained models for other programs; each is imported where it is asked for."""
