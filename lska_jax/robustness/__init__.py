"""Robustness: corrupted and shifted data sets, corruptions, scores, sweep and report."""
