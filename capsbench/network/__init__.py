"""The backend-agnostic network spec: what a network is, before any framework realizes it."""
