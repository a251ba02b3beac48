"""The embedded server reads the probe as it loads an adapter, and serves none that changes nothing."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from safetensors.torch import load_file, save_file
from traitroute.adapters import Adapter, AdapterState

PENDING, READY = AdapterState.PENDING, AdapterState.READY


def scaled(factor: float) -> Any:
    """An edit of an adapter's folder: its B matrices times `factor`."""

    def edit(folder: Path) -> None:
        file = folder / "adapter_model.safetensors"
        tensors = load_file(file)
        save_file({k: v * factor if "lora_B" in k else v for k, v in tensors.items()}, file)

    return edit


def put(house: Any, name: str, factor: float, *, state: AdapterState = PENDING) -> Adapter:
    house.put_edited(name, seed=11, edit=scaled(factor))
    return house.registry.set_state(name, state)


def ask(client: httpx.Client, model: str) -> httpx.Response:
    asked = {"temperature": 0, "max_tokens": 4, "messages": [{"role": "user", "content": "w10 w11 w10"}]}
    return client.post("/v1/chat/completions", json={"model": model, **asked})


@pytest.mark.parametrize(("factor", "status"), [(0.0, 400), (1e-6, 400), (1.0, 200)])
def test_an_adapter_without_effect_is_refused_by_name(house: Any, serve: Any, factor: float, status: int) -> None:
    put(house, "odd", factor)
    with serve(house) as server, server.client() as client:
        answer = ask(client, "odd")
        again = ask(client, "odd")
        shown = client.get("/metrics").text
    assert (answer.status_code, again.status_code) == (status, status)
    assert ("odd is set aside: asked for it, this server answers as base" in answer.text) is (status == 400)
    verdict = "applied" if status == 200 else "idle"
    assert f'traitroute_adapter_verdict{{adapter="odd",verdict="{verdict}"}} 1.0' in shown


def test_auto_answers_with_base_where_the_chosen_adapter_changes_nothing(house: Any, serve: Any) -> None:
    house.put_profile()
    house.registry.remove_adapter("red")
    red = put(house, "red", 0.0, state=READY)
    house.registry.set_effect(red, 5.0, 0.0001)
    with serve(house) as server, server.client() as client:
        answer = ask(client, "auto")
    assert answer.headers["x-traitroute-adapter"] == "base"
    assert answer.headers["x-traitroute-reason"].startswith("load-failed: red is set aside: asked for it")


def test_an_adapter_that_measuring_showed_to_change_answers_is_not_locked_out(house: Any, serve: Any) -> None:
    """The probe is blind to it, here as when it was measured."""
    blind = put(house, "blind", 0.0, state=READY)
    house.registry.set_effect(blind, 0.0, 0.0001)
    with serve(house) as server, server.client() as client:
        assert ask(client, "blind").status_code == 200
        shown = client.get("/metrics").text
    assert 'traitroute_adapter_verdict{adapter="blind",verdict="unproven"} 1.0' in shown
