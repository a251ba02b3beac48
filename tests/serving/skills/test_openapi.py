"""The description is the code's own: every route, every model."""

import re
from typing import Any

from starlette.routing import Route
from traitroute.serving.api_routes import api_routes

UNDESCRIBED = ("/v1/openapi.json", "/mcp", "/traits")
"""The description itself, another protocol's, and a page for people."""


def test_every_route_is_described(server: Any) -> None:
    described = server.get("/v1/openapi.json").json()
    routes = {
        (route.path, method.lower())
        for route in api_routes(server.state)
        if isinstance(route, Route) and not route.path.startswith(UNDESCRIBED)
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert routes == {(path, m) for path, ms in described["paths"].items() for m in ms}


def test_every_reference_resolves_and_constraints_are_told(server: Any) -> None:
    response = server.get("/v1/openapi.json")
    schemas = response.json()["components"]["schemas"]
    assert set(re.findall(r"#/components/schemas/(\w+)", response.text)) <= set(schemas)
    assert set(schemas["Limits"]["properties"]) == {"allow", "deny", "tags", "min_gain"}
    assert schemas["FeedbackRequest"]["properties"]["reward"]["anyOf"][0]["maximum"] == 1
