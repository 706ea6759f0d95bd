"""Data sets: where the images come from, how they are checked, and the batches that every backend sees."""
