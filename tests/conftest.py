"""Settings for all tests; makes `tiny_recipe` importable."""

import sys
from pathlib import Path

from hypothesis import settings

sys.path.append(str(Path(__file__).parent))

# Time limits of single examples fail on a busy machine and say nothing of the code; benchmarks measure speed.
settings.register_profile("octavo", deadline=None)
settings.load_profile("octavo")
