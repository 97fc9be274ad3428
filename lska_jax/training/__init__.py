"""Training: losses, optimizer, state, step, checkpoints, reporting and the loop."""
