"""Settings for all tests."""

from hypothesis import settings

# Time limits of single examples fail on a busy machine and say nothing of the code; benchmarks measure speed.
settings.register_profile("octavo", deadline=None)
settings.load_profile("octavo")
