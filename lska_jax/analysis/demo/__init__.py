"""A page to play with a model on: photos, corruptions, and what the network looks at."""
