"""Did-you-mean text for unknown names: of ten thousand names, those with the same beginning are compared."""

import pytest
from traitroute.adapters import Adapter, Registry, UnknownNameError
from traitroute.adapters.errors import COMPARED, did_you_mean

NAMES = [f"{kind}-{i:04}" for kind in ("code", "law", "math") for i in range(400)]


def test_the_nearest_of_many_is_named() -> None:
    assert len(NAMES) > COMPARED
    assert did_you_mean("math-0239y", NAMES).startswith("; did you mean 'math-0239'? Known: code-0000, ")
    assert did_you_mean("math-0239x", NAMES).endswith(f"and {len(NAMES) - 20} more")
    assert did_you_mean("nothing like it", NAMES).startswith(". Known: ")


@pytest.mark.slow
def test_a_registry_suggests_the_same(registry: Registry) -> None:
    made = {"base_model": "tiny", "base_digest": "f" * 64, "rank": 1, "target_modules": ("q",)}
    for i, name in enumerate(NAMES[::2]):
        registry.add_adapter(Adapter.model_validate({"name": name, "weights_digest": f"{i:016x}{0:048}", **made}))
    with pytest.raises(UnknownNameError) as caught:
        registry.adapter("law-0101")
    assert str(caught.value) == f"no adapter named 'law-0101'{did_you_mean('law-0101', NAMES[::2])}"
