"""One live server with a tiny model, for the tests that leave it as it was."""

from pathlib import Path

import pytest

from octavo.serve.config import ServiceConfig
from tiny_server import save_tiny, serving, tiny_tokenizer


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A model folder: reasons in tags, 512 tokens of context."""
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny", tiny_tokenizer())


@pytest.fixture(scope="session")
def served(tiny):
    """One server for the tests that leave it as it was."""
    with serving({"tiny": tiny}, ServiceConfig(max_rows=8, default_max_tokens=32)) as server:
        yield server


@pytest.fixture
def client(served):
    with served.client() as client:
        yield client
