"""Where a replica of Ray Serve LLM gets adapters from: the weight store, by the digest that a request names."""

import asyncio
import re
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from starlette.exceptions import HTTPException

from ...adapters import WeightsError, WeightStore


@dataclass(frozen=True)
class StoredAdapter:
    """What Ray's engine is told of an adapter: the name that it is asked for by, and the folder of its weights."""

    model_id: str
    local_path: str


class StoredWeights:
    """A `model_downloader` of Ray's `LLMServer` that downloads nothing: all replicas see the store at `root`.

    Ray makes one in each replica, with how long and how often it may try; neither matters to a folder.
    """

    def __init__(self, root: Path, **_: Any) -> None:
        self._store = WeightStore(root)

    async def load_model_from_config(self, lora_model_id: str, llm_config: Any) -> StoredAdapter:
        """The weights of `base:name@digest`, checked against their digest.

        Raises:
            HTTPException: the name holds no digest, or the weights are missing or damaged.
        """
        named = re.fullmatch("[^:]+:[^:@]+@([0-9a-f]{64})", lora_model_id)
        if named is None:
            raise HTTPException(HTTPStatus.NOT_FOUND, f"no model {lora_model_id[:200]!r}: adapters go by their digest")
        try:
            await asyncio.to_thread(self._store.verify, named[1])
        except (WeightsError, OSError) as exc:
            message = f"the stored weights of {lora_model_id} are damaged or missing"
            raise HTTPException(HTTPStatus.NOT_FOUND, message) from exc
        return StoredAdapter(lora_model_id, str(self._store.path(named[1])))
