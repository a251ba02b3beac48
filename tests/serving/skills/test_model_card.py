"""A skill's card can be pushed to the Hub beside its weights."""

from typing import Any

import pytest
import yaml
from traitroute.serving.skills.card import metadata, model_card


def test_the_metadata_is_what_the_hubs_own_library_reads_and_writes(server: Any) -> None:
    hub = pytest.importorskip("huggingface_hub")
    card = server.skills.card("chef")
    read = hub.ModelCard(model_card(card)).data
    assert read.to_dict() == metadata(card)
    assert (read.base_model, read.license) == ("tiny", "apache-2.0")
    assert read.tags == ["traitroute", "lora", "kitchen"]
    scores = {result.dataset_name: result.metric_value for result in read.eval_results}
    assert scores == {gain.task: gain.score for gain in card.gains}


def test_a_licence_without_a_short_name_is_named_in_full(server: Any) -> None:
    card = server.skills.card("chef").model_copy(update={"licence": "Ours: internal only\n---"})
    _, front, _ = model_card(card).split("---\n", 2)
    assert yaml.safe_load(front)["license"] == "other"


def test_the_text_tells_gains_side_effects_and_origin(server: Any) -> None:
    text = model_card(server.skills.card("chef"))
    assert "| cooking | 0.20 | 0.90 | +0.70 |" in text
    assert "it surely loses" in text
    assert "apache-2.0" in text
