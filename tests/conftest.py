"""Settings for all tests; makes `tiny_recipe` importable."""

import sys
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.append(str(Path(__file__).parent))

# Time limits of single examples fail on a busy machine and say nothing of the code; benchmarks measure speed.
settings.register_profile("octavo", deadline=None)
settings.load_profile("octavo")


@pytest.fixture(params=["kernels", "torch"])
def way(request, monkeypatch):
    """Both ways of computing inference; that of the kernels only where there is a compiler."""
    from octavo import native

    monkeypatch.delenv(native.SWITCH, raising=False)
    if request.param == "torch":
        monkeypatch.setenv(native.SWITCH, "0")
    elif not native.available():
        pytest.skip(native.status().why)
    return request.param
