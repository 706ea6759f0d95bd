"""The NumPy backend: the float64 oracle, and the definition of every layer."""
