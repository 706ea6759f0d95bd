"""The parent: which case runs when, in worker processes of their own, and what becomes of what they say."""
