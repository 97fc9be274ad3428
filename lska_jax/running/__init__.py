"""What any program of the package needs around its work: processes, caches, signals."""
