"""`python -m gemmcast` is `gemmcast`."""

import sys

from gemmcast.cli import main

sys.exit(main())
