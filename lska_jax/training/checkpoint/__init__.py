"""Checkpoints: atomic, hashed, compared before they are restored."""
