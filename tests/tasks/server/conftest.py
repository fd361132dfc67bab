import pytest

from fake_server import fake_server


@pytest.fixture
def server():
    with fake_server() as server:
        yield server
