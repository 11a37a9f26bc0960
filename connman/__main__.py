"""Make ``python -m connman`` the command line."""

import sys

from connman.cli import main

if __name__ == "__main__":
    sys.exit(main())
