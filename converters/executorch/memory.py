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
    ("executorch.exir.backend.utils", ("is_same_node",)),
    ("torchao.utils", ("_assert_and_get_unique_device",)),
    ("torch.fx.experimental.symbolic_shapes", ("ShapeEnv", "_inner_evaluate_expr")),
    ("torch._subclasses.fake_tensor", ("FakeTensorMode",)),
)


@contextlib.contextmanager
def forgetting() -> Iterator[None]:
    """Let go, at the end of the block, of what was kept inside it."""
    before = set(_sources())
    try:
        yield
    finally:
        for module, names in _KEYED_BY_GRAPH:
            place: Any = sys.modules.get(module)
            for name in names:
                place = getattr(place, name, None)
            clear = getattr(place, "cache_clear", None)
            if callable(clear):
                clear()
        sources = _sources()
        for key in set(sources) - before:
            sources.pop(key, None)
            linecache.cache.pop(key, None)


def _sources() -> dict[str, Any]:
    """Sources of compiled graphs, which torch.fx keeps for tracebacks."""
    loader = getattr(sys.modules.get("torch.fx.graph_module"), "_loader", None)
    kept = getattr(loader, "eval_cache", None)
    return kept if isinstance(kept, dict) else {}
