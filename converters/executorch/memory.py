"""What torch, torchao and ExecuTorch keep of every conversion is let go: a release converts many files.

A conversion leaves its graphs behind in caches that are keyed by graph, and the source of each graph that
torch.fx compiled on the way: about 1.5 MB each time, for a network of a few kilobytes. All of these are
conveniences of the libraries; where one is not as expected, it is left alone.
"""

from __future__ import annotations

import contextlib
import linecache
import sys
from collections.abc import Iterator
from typing import Any

_KEYED_BY_GRAPH = (
    ("executorch.exir.backend.utils", "is_same_node"),
    ("torchao.utils", "_assert_and_get_unique_device"),
    ("torch.ao.quantization.fx.convert", "assert_and_get_unique_device"),
    ("torch._subclasses.fake_tensor", "FakeTensorMode"),
)
_SHAPES = ("torch.fx.experimental.symbolic_shapes", "ShapeEnv")
_EXPORTED = ("torch.fx.experimental.proxy_tensor", "_FAKE_TENSOR_ID_TO_PROXY_MAP_FOR_EXPORT")


@contextlib.contextmanager
def forgetting() -> Iterator[None]:
    """Let go, at the end of the block, of what was kept inside it."""
    before = set(_sources())
    try:
        yield
    finally:
        methods = vars(_found(*_SHAPES)).values() if isinstance(_found(*_SHAPES), type) else ()
        for cache in (*(_found(*place) for place in _KEYED_BY_GRAPH), *methods):
            clear = getattr(cache, "cache_clear", None)
            if callable(clear):
                clear()
        exported = _found(*_EXPORTED)
        if isinstance(exported, dict):
            exported.clear()
        sources = _sources()
        for key in set(sources) - before:
            sources.pop(key, None)
            linecache.cache.pop(key, None)


def _found(module: str, name: str) -> Any:
    return getattr(sys.modules.get(module), name, None)


def _sources() -> dict[str, Any]:
    """Sources of compiled graphs, which torch.fx keeps for tracebacks."""
    loader = _found("torch.fx.graph_module", "_loader")
    kept = getattr(loader, "eval_cache", None)
    return kept if isinstance(kept, dict) else {}
