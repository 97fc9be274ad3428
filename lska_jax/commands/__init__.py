"""What ``lska-jax`` and its doors run, one file a command."""
