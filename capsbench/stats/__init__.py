"""Pure functions on samples: when they have settled, and how sure their median is."""
