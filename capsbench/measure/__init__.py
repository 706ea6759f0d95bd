"""Clocks, memory, op tables: what is measured and in which words, for every backend alike."""
