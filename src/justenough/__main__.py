"""`python -m justenough`."""

import sys

from justenough.cli.main import main

sys.exit(main())
