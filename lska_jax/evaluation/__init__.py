"""Exact metrics over masked batches."""
