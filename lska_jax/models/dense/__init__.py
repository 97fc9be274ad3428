"""Networks that say something of every place of an image: pyramids, segmentors, detectors."""
