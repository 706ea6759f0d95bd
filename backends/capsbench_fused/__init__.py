"""EM routing without stored votes: one formulation, for every backend that computes on the processor."""
