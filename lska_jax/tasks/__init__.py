"""What is learned: batches, losses and metrics of each task."""
