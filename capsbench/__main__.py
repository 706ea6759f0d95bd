"""`python -m capsbench`: the command line."""

import sys

from capsbench.cli import main

if __name__ == "__main__":
    sys.exit(main())
