"""Suite files: which cases are run, and what is measured of each."""
