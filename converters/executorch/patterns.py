"""torchao's patterns of convolution and BatchNorm, exported once a process.

Preparing and folding a quantization-aware graph exports some hundred tiny patterns, the same ones each time:
15 seconds for a network of any size. This is the only place that reaches into torchao's private functions;
where they are not as expected nothing is kept, and the patterns are exported as ever.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import BuiltinFunctionType, FunctionType
from typing import Any

_NAME = "_get_aten_graph_module_for_pattern"
_MODULES = (
    "torchao.quantization.pt2e.qat_utils",
    "executorch.backends.xnnpack.quantizer.xnnpack_quantizer_utils",
)
_known: dict[Any, Any] = {}


@contextmanager
def known_patterns() -> Iterator[None]:
    """Inside the block a pattern that was exported before is copied in place of exported again."""
    places = [sys.modules[name] for name in _MODULES if hasattr(sys.modules.get(name), _NAME)]
    originals = [getattr(place, _NAME) for place in places]
    try:
        for place, original in zip(places, originals, strict=True):
            setattr(place, _NAME, _remembering(original))
        yield
    finally:
        for place, original in zip(places, originals, strict=True):
            setattr(place, _NAME, original)


def _remembering(export: Any) -> Any:
    def pattern_graph(pattern: Any, example_inputs: Any, is_cuda: bool = False, **more: Any) -> Any:
        key = _key(pattern, example_inputs, is_cuda, more)
        if key is None:
            return export(pattern, example_inputs, is_cuda, **more)
        if key not in _known:
            _known[key] = export(pattern, example_inputs, is_cuda, **more)
        # Matching changes what it is given.
        return copy.deepcopy(_known[key])

    return pattern_graph


def _key(pattern: Any, example_inputs: Any, is_cuda: bool, more: dict[str, Any]) -> Any:
    """What tells one pattern from another: its code, what it has closed over, and the inputs' shapes.
    None for a pattern of another form."""
    function = _function_key(getattr(pattern, "fn", pattern))
    inputs = [_shape(value) for value in (*example_inputs, *more.values())]
    if function is None or any(shape is None for shape in inputs):
        return None
    return function, is_cuda, tuple(more), tuple(inputs)


def _function_key(function: Any, depth: int = 0) -> Any:
    """The same for functions that are made anew by each call of the same maker."""
    if isinstance(function, type) or isinstance(function, BuiltinFunctionType):
        return function
    if not isinstance(function, FunctionType) or depth > 3:
        return None
    closed: list[Any] = []
    for cell in function.__closure__ or ():
        value = cell.cell_contents
        plain = isinstance(value, bool | int | float | str) or value is None
        closed.append((type(value).__name__, value) if plain else _function_key(value, depth + 1))
        if closed[-1] is None:
            return None
    return function.__code__, tuple(closed)


def _shape(value: Any) -> Any:
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return tuple(value.shape), str(value.dtype)
    return (type(value).__name__, value) if isinstance(value, bool | int | float | str) else None
