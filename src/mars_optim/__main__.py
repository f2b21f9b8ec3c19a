"""``python -m mars_optim`` is the command ``mars``."""

import sys

from .cli import main

sys.exit(main())
