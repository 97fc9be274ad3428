"""What a network costs, and what it looks at: compiled programs and forward passes, read."""
