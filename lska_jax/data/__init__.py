"""From examples on disk to global device batches: the only room that decodes images."""
