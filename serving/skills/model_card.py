"""A skill card as the Hub's model card: README.md with the metadata that the Hub reads.

The metadata is what `huggingface_hub.ModelCardData` makes, which the tests hold it against; to write it takes no more than YAML.
"""

import re
from typing import Any

import yaml

from .markdown import card_markdown
from .models import MeasuredGain, SkillCard


def model_card(card: SkillCard) -> str:
    """A README.md to lie beside the adapter's weights, to be pushed with them."""
    described = yaml.safe_dump(metadata(card), sort_keys=False, allow_unicode=True)
    return f"---\n{described}---\n\n{card_markdown(card)}"


def metadata(card: SkillCard) -> dict[str, Any]:
    """What the Hub reads: base model, licence, tags, and each measured score as a result."""
    found: dict[str, Any] = {"base_model": card.base_model, "library_name": "peft"}
    if card.licence is not None:
        found |= _licence(card.licence)
    found["tags"] = list(dict.fromkeys(["traitroute", card.method, *card.tags]))
    if card.gains:
        results = [_result(gain) for gain in card.gains]
        found["model-index"] = [{"name": card.name, "results": results}]
    return found


def _licence(licence: str) -> dict[str, str]:
    # The Hub has short names for licences, and takes another only by this way.
    if re.fullmatch(r"[a-z0-9.+-]{2,40}", licence):
        return {"license": licence}
    return {"license": "other", "license_name": licence}


def _result(gain: MeasuredGain) -> dict[str, Any]:
    metric = {
        "type": "accuracy",
        "value": round(gain.score, 4),
        "name": f"strictly correct (base model: {gain.base:.4f})",
    }
    return {
        "task": {"type": "text-generation"},
        "dataset": {"name": gain.task, "type": gain.task},
        "metrics": [metric],
    }
