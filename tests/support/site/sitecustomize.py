"""Makes the jobs of a queue pretend, too: Python imports this file when it starts."""

import importlib
import os
import sys
from pathlib import Path

if "submitit.core._submit" in sys.orig_argv and os.environ.get("PRETENDED_SCRIPT"):
    sys.path.append(str(Path(__file__).parents[1]))
    importlib.import_module("pretended_job").take_over()
