import logging
from typing import Any

import pytest


def test_each_choice_is_one_debug_record_with_its_parts_and_no_text(
    server: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, logger="traitroute"):
        server.chat("code is secret")
    [record] = [r for r in caplog.records if r.name.startswith("traitroute")]
    parts = vars(record)
    assert record.levelno == logging.DEBUG
    assert (parts["traitroute_adapter"], parts["traitroute_kind"]) == ("code", "adapter")
    assert parts["traitroute_gain"] == 0.134
    assert parts["traitroute_seconds"] > 0
    assert "secret" not in str(parts)


def test_a_fault_of_every_request_is_warned_of_once(server: Any, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(5):
        server.chat("crash")
        server.chat("broken")
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warnings == [
        "base stands in: router-error: ZeroDivisionError",
        "base stands in: load-failed: broken: rank 64 is greater than max_lora_rank 16",
    ]
