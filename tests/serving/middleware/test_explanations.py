import base64
import json
from collections import Counter
from typing import Any

import pytest
from traitroute.router import Affinity, RoutingDecision
from traitroute.serving.middleware.choice import Choice
from traitroute.serving.middleware.record import Explanation, Recorder, header_value


def decoded(value: str | bytes) -> dict[str, Any]:
    return json.loads(base64.urlsafe_b64decode(value))


def explanation_with(ranked: int, parts: int) -> Explanation:
    names = [f"{'long-name' * 6}-{i}" for i in range(ranked)]
    decision = RoutingDecision(
        adapter=names[0],
        gain=0.123456,
        interval=(0.1, float("inf")),
        margin=0.1,
        reason="chosen",
        demand={f"component {i}": i / 7 for i in range(parts)},
        contributions={f"component {i}": i / 7 for i in range(parts)},
        nearest_tasks=(),
        ranking=tuple(Affinity(adapter=n, gain=0.1, low=0.0, high=0.2) for n in names),
        profile_version=1,
    )
    return Explanation.of(Choice.of(decision))


def test_with_explain_the_whole_decision_is_in_a_header_and_at_its_id(server: Any, router: Any) -> None:
    response = server.chat("code is secret", traitroute={"explain": True})
    told = decoded(response.headers["x-traitroute-decision"])
    whole = server.get(f"/v1/decisions/{response.headers['x-traitroute-decision-id']}").json()
    assert router.options["explain"] is True
    assert told["id"] == whole["id"] == response.headers["x-traitroute-decision-id"]
    assert (told["adapter"], told["kind"], told["profile_version"]) == ("code", "adapter", 7)
    assert whole["decision"]["demand"] == {"trait 1": 0.123456789}
    assert told["decision"]["demand"] == {"trait 1": 0.1235}
    assert "secret" not in json.dumps(whole)


def test_without_explain_nothing_is_kept(server: Any) -> None:
    assert not {"x-traitroute-decision", "x-traitroute-decision-id"} & set(server.chat("code").headers)


def test_a_fallback_is_explained_too(server: Any) -> None:
    response = server.chat("broken", headers={"x-traitroute-explain": "1"})
    told = decoded(response.headers["x-traitroute-decision"])
    assert (told["adapter"], told["kind"]) == ("base", "load-failed")
    assert told["decision"]["adapter"] == "broken"


def test_an_unknown_id_is_not_found_and_says_why(server: Any) -> None:
    response = server.get("/v1/decisions/none")
    assert response.status_code == 404
    assert "server process" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("ranked", "parts", "ranking", "has_parts"),
    [(2, 3, 2, True), (10, 200, 10, False), (60, 3, 3, False)],
)
def test_the_header_is_shortened_to_six_kibibytes(ranked: int, parts: int, ranking: int, has_parts: bool) -> None:
    value = header_value(explanation_with(ranked, parts).model_dump_json())
    assert 0 < len(value) <= 6 * 1024
    assert len(decoded(value)["decision"]["ranking"]) == ranking
    assert ("demand" in decoded(value)["decision"]) is has_parts


def test_a_decision_that_cannot_fit_has_an_id_alone() -> None:
    explanation = explanation_with(1, 1)
    huge = explanation.model_copy(update={"reason": "long " * 2000})
    assert [name for name, _ in huge.headers()] == [b"x-traitroute-decision-id"]


def test_only_the_newest_decisions_are_kept() -> None:
    recorder = Recorder(Counter(), kept=2)
    ids = [dict(recorder.explain(Choice.base("base: none")))[b"x-traitroute-decision-id"].decode() for _ in range(3)]
    assert [recorder.find(each) is not None for each in ids] == [False, True, True]
