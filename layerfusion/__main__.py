"""`python -m layerfusion` is `layerfusion`."""

import sys

from layerfusion.cli import main

sys.exit(main())
