"""Requests made from the server's own description of itself, right ones and wrong ones: never a 5xx."""

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode

EXAMPLES = 6
PATHS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/models",
    "/v1/models/{name}",
)
WITH_BODY = PATHS[:4]
CHEAP = {"max_tokens": 8, "max_completion_tokens": 8, "max_output_tokens": 8, "n": 4}


@pytest.fixture(scope="module")
def described(served):
    return schemathesis.openapi.from_url(f"{served.url}/openapi.json")


def test_everything_is_described(served):
    paths = httpx2.get(f"{served.url}/openapi.json").json()["paths"]
    assert {*PATHS, "/health", "/metrics"} <= paths.keys()


@pytest.mark.parametrize(
    ("path", "mode"),
    # What has no body cannot be asked for wrongly.
    [(path, mode) for path in PATHS for mode in GenerationMode if mode.value == "positive" or path in WITH_BODY],
)
def test_no_request_harms_the_server(described, client, path, mode):
    (operation,) = [found.ok() for found in described.get_all_operations() if found.ok().path == path]

    checks = list(HealthCheck)

    @settings(max_examples=EXAMPLES, derandomize=True, phases=[Phase.generate], suppress_health_check=checks)
    @given(operation.as_strategy(generation_mode=mode))
    def ask(case):
        if isinstance(case.body, dict):
            if isinstance(case.body.get("model"), str):
                case.body["model"] = "tiny"  # else every request would end there
            for name, most in CHEAP.items():
                if isinstance(case.body.get(name), int):
                    case.body[name] = min(case.body[name], most)
        case.call_and_validate(checks=[not_a_server_error], timeout=60)

    ask()
    assert client.models.list().data
