"""How large an image may be, wherever one is read; nothing is imported here."""

# Cameras reach 151 million pixels. Up to here Pillow's own limit, which differs by format and
# holds for the whole process, refuses nothing. Of training, evaluation, predictions and sweeps it
# is an option.
MAX_PIXELS = 175_000_000
# More than any image below that limit, uncompressed with 16 bits a channel.
MAX_FILE_BYTES = 2_000_000_000
