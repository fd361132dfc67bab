import platform
import subprocess
import sys

import pytest

HOLES = """
import psutil, torch
from octavo import heap

megabytes = lambda: psutil.Process().memory_info().rss / 2**20
heap.keep_large_blocks_apart()
torch.ones(1)
before = megabytes()
blocks = [(torch.ones(2**18), torch.ones(2**8)) for _ in range(200)]  # 1 MiB, and 1 KiB behind it that stays
kept = [small for _, small in blocks]
large = torch.ones(2**26)
print(megabytes() - before)
del blocks, large
print(megabytes() - before)
heap.give_back()
print(megabytes() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be steered")
def test_what_is_free_goes_back_to_the_system():
    """Large blocks at once; the holes between small ones that are in use when it is asked for."""
    done = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True)
    filled, freed, trimmed = map(float, done.stdout.split())
    assert filled == pytest.approx(456, abs=20)
    assert freed == pytest.approx(200, abs=20)
    assert trimmed == pytest.approx(0, abs=20)
