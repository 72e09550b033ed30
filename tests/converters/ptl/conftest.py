"""The models of the .pte tests as .ptl files."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def ptl_zoo(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`models`, `rows` and `files[name, format]`, as `torch_zoo` of the .pte tests has them."""
    from edgeprivacy.converters.ptl.convert import convert_ptl

    place = Path(__file__).parents[1] / "executorch" / "conftest.py"
    spec = importlib.util.spec_from_file_location("pte_conftest", place)
    assert spec is not None and spec.loader is not None
    shared = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = shared  # dataclasses look their module up
    spec.loader.exec_module(shared)
    zoo = shared.TorchZoo(tmp_path_factory.mktemp("ptl-zoo"), shared.build_models())
    for name, model in zoo.models.items():
        shape = shared.SHAPES[name]
        zoo.rows[name] = shared.rows_for(shape)
        for format_ in ("ptl-float32", "ptl-int8"):
            zoo.files[name, format_] = zoo.folder / f"{name}-{format_}.ptl"
            convert_ptl(model, format_, zoo.rows[name], zoo.files[name, format_], None, shape)
    return zoo
