"""Predictions as pictures, drawn with Pillow alone."""
