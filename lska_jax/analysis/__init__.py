"""What a network costs: compiled programs read for their bytes and memory."""
