"""A run on disk: one SQLite file with everything that tables are made of, and large arrays as files beside it."""
