"""Makes `tiny_training` importable, here and in the processes that tests spawn."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _one_thread():
    """Small tensors: threads cost more than they bring, and one count makes traces comparable."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
