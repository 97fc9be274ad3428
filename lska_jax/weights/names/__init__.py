"""Names and layouts of the checkpoints out there, one table a family."""
