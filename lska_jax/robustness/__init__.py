"""Robustness: corrupted and shifted image sets, their scores, the sweep over them, the report."""
