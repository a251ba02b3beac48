"""Every route of /v1/openapi.json on a real gateway, with valid and invalid requests from schemathesis."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS
from traitroute.adapters import Registry
from traitroute.serving.gateway import GatewayOptions, gateway_app

from ..servers import serving

pytest.importorskip("dbos", reason="needs DBOS: pip install 'traitroute[worker]'")
KEYS = {"authorization": "Bearer a key", "x-traitroute-admin-key": "an admin's key"}
ASKED = 25
"""Requests to each route that its description allows, and as many that it does not."""
GROWTH = 200 * 2**20
"""Bytes that the server's process may grow by, with all that schemathesis keeps of its own."""
CHECKED = (
    "content_type_conformance",
    "response_schema_conformance",
    "status_code_conformance",
)
SUPPRESSED = (
    HealthCheck.data_too_large,
    HealthCheck.filter_too_much,
    HealthCheck.large_base_example,
    HealthCheck.too_slow,
)


@pytest.fixture(scope="module")
def api(filled: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The description that a gateway gives, whose registry has three adapters and may be changed."""
    folder = tmp_path_factory.mktemp("fuzz")
    path = folder / "registry.db"
    path.write_bytes(filled.read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRAITROUTE_ADMIN_KEY", KEYS["x-traitroute-admin-key"])
        patch.setenv("TRAITROUTE_ALLOWED_SOURCES", str(folder))
        options = GatewayOptions(upstreams=("http://127.0.0.1:9",), key="a key")
        app = gateway_app(options, lambda: Registry.open(path, read_only=True))
        with serving(app) as url:
            before = psutil.Process().memory_info().rss
            yield schemathesis.openapi.from_url(f"{url}/v1/openapi.json", headers=KEYS)
            assert psutil.Process().memory_info().rss - before < GROWTH


def ask(case: Any) -> None:
    response = case.call(headers=KEYS, timeout=120)
    # On a busy machine the server may say so, and when to ask again.
    if response.status_code == 503 and "retry-after" in response.headers:
        return
    assert response.status_code < 500, response.text
    case.validate_response(response, checks=CHECKS.get_by_names(CHECKED))


@pytest.mark.parametrize("mode", GenerationMode)
def test_no_request_ends_in_a_fault_of_ours(api: Any, mode: GenerationMode) -> None:
    asked = settings(max_examples=ASKED, suppress_health_check=SUPPRESSED)
    operations = [found.ok() for found in api.get_all_operations()]
    assert len(operations) > 14
    for operation in operations:
        try:
            strategy = operation.as_strategy(generation_mode=mode)
            if "{name}" in operation.path:
                strategy |= operation.as_strategy(mode, path_parameters={"name": "chef"})
            asked(given(strategy)(ask))()
        except Unsatisfiable:
            # Nothing of it can be wrong: it has no parameters.
            assert mode is GenerationMode.NEGATIVE
