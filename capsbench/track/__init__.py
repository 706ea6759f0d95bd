"""Suites tracked over commits."""
