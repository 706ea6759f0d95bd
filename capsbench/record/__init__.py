"""Records: one line a case, and the folders they are kept in."""
