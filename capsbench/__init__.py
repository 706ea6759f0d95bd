"""capsbench: what a capsule network really costs and really reaches, on any framework."""

__version__ = "0.1.0"
