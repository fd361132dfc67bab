import pytest

from octavo.errors import ConfigError
from octavo.tasks.server import ServerConfig


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://x/v1", "expected an address as http://localhost:8000/v1"),
        ("localhost:8000/v1", "expected an address as"),
        ("file:///etc/passwd", "expected an address as"),
        ("http:///v1", "expected an address as"),
        ("https://me:secret@host/v1", "put a key into an environment variable"),
        ("https://host/v1?key=secret", "put a key into an environment variable"),
    ],
)
def test_addresses_that_are_none_or_hold_secrets_are_refused(url, message):
    with pytest.raises(ConfigError, match=message) as caught:
        ServerConfig.parse({"url": url, "model": "m"}, "stages.samples.teacher")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["stream", "n", "messages", "model"])
def test_what_would_change_how_replies_are_read_may_not_be_set(name):
    with pytest.raises(ConfigError, match=f"extra: {name} may not be set"):
        ServerConfig.parse({"url": "http://x/v1", "model": "m", "extra": {name: 1}})


def test_the_key_is_read_from_the_environment_and_not_kept(monkeypatch):
    config = ServerConfig(url="http://x/v1", model="m", key_env="OCTAVO_TEST_KEY")
    monkeypatch.setenv("OCTAVO_TEST_KEY", " sk-secret\n")
    assert config.key() == "sk-secret"
    assert "sk-secret" not in str(config.dump())
    monkeypatch.delenv("OCTAVO_TEST_KEY")
    with pytest.raises(ConfigError, match="the environment variable OCTAVO_TEST_KEY is not set"):
        config.key()
    assert ServerConfig(url="http://x/v1", model="m").key() is None
