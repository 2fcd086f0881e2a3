from __future__ import annotations
from pathlib import Path
import pytest
from .kit.index import Index
from .kit.place import Place

@pytest.mark.parametrize("installer", ["pip", "uv"])
def test_end_to_end(place: Place, index: Index, installer: str) -> None:
    index.wheel("tiny-plugin", "1.0", requires=["vllm", "helper>=1"], entry_points={"vllm.general_plugins": {"tiny": "tiny_plugin:run"}})
    index.wheel("helper", "1.5")
    print(index.page("tiny-plugin"))
    place.pypi("tiny-plugin>=1")
    done = place.run("lock")
    print(done, place.lock_text)
    done = place.run("sync", env={"VLLM_PLUGIN_INSTALLER": installer})
    print(done, place.registry)
    print("\n".join(place.files()))
