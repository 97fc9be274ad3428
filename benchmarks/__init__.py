"""What the speed claims run: each module is one command, ``python -m benchmarks.NAME``."""
