"""Quantization-aware training by PT2E: fake quantizers as XNNPACK rounds, after BatchNorm is folded in.

The exported graph keeps the network's parameters under their own names, so masks and palettes hold them as in
plain training.
"""

from __future__ import annotations

import copy

import torchao.quantization.pt2e as pt2e
from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e

from edgeprivacy.backends.base import Weights
from edgeprivacy.backends.executorch.dropout import rate_of
from edgeprivacy.backends.executorch.frameworks import DEVICE, torch
from edgeprivacy.backends.executorch.models import Classifier
from edgeprivacy.backends.executorch.tensors import state_of
from edgeprivacy.converters.executorch.convert import quantizer
from edgeprivacy.converters.executorch.lowering import GRAPH_ROWS, LOGGERS, export_graph
from edgeprivacy.converters.executorch.patterns import known_patterns
from edgeprivacy.converters.quiet import quiet
from edgeprivacy.errors import ModelError

_PREFIX = "prepared."
_EXAMPLE_ROWS = 17
_HEADS = (torch.ops.aten.softmax.int, torch.ops.aten.sigmoid.default)


class QuantizationAware(torch.nn.Module):
    """A classifier with fake quantizers; `state_dict` holds their ranges as well.

    Args:
        classifier: The plain network; it is copied.
        input_shape: Of one row.
        batch_size: The largest batch that will train.

    Raises:
        ModelError: The network cannot be exported, or PT2E cannot quantize it.
    """

    def __init__(self, classifier: Classifier, input_shape: tuple[int, ...], batch_size: int) -> None:
        super().__init__()
        plain = copy.deepcopy(classifier).cpu().train()
        try:
            with quiet(*LOGGERS), known_patterns():
                exported = export_graph(plain, input_shape, max(GRAPH_ROWS, batch_size), _EXAMPLE_ROWS)
                # Moved first: the graphs below would keep the buffers of before.
                self.prepared = prepare_qat_pt2e(exported.module(), quantizer(aware=True)).to(DEVICE)
                training, evaluation = _logits_of(self.prepared, True), _logits_of(self.prepared)
                pt2e.move_exported_model_to_eval(evaluation)
        except ModelError:
            raise
        except Exception as error:
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise ModelError(
                "the model has no quantization-aware form in PT2E",
                got=reason[:300],
                hint="leave the format qat-int8 out; int8 (post-training) may still work",
            ) from None
        # Not submodules: they share every parameter and buffer with the prepared graph.
        self._graphs = {True: training, False: evaluation}
        self._observers = [layer for layer in self.prepared.modules() if hasattr(layer, "observer_enabled")]
        self._fresh = state_of(self)

    def train(self, mode: bool = True) -> QuantizationAware:
        """Ranges are learned in training and stand still in evaluation."""
        self.training = mode
        for observer in self._observers:
            observer.observer_enabled[0] = int(mode)
        return self

    def logits(self, x):
        """Logits [batch, classes or 1], rounded as in the file."""
        return self._graphs[self.training](x)

    def start(self, classifier: Classifier) -> Weights:
        """The state before training: the plain weights, and ranges that have seen nothing."""
        plain = {
            _PREFIX + name: array
            for name, array in zip(classifier.state_dict(), state_of(classifier), strict=True)
        }
        return [plain.get(name, fresh) for name, fresh in zip(self.state_dict(), self._fresh, strict=True)]

    def finished(self):
        """The prepared graph, its ranges final: what a converter takes, and leaves as it is."""
        self.train(False)
        return self.prepared if DEVICE.type == "cpu" else copy.deepcopy(self.prepared).cpu()


def quantized_parameter(name: str) -> str:
    """Name, in a `QuantizationAware`, of a parameter of the plain classifier."""
    return _PREFIX + name


def _logits_of(prepared, trains: bool = False):
    """The same graph up to what goes into its softmax or sigmoid; parameters and quantizers are shared. In
    one that trains dropout works at the rate of the moment."""
    graph = copy.deepcopy(prepared.graph)
    for node in graph.nodes:
        if trains and node.target is torch.ops.aten.dropout.default:
            node.target = _drop_out
    output = next(node for node in reversed(graph.nodes) if node.op == "output")
    last = output.args[0][0]
    if last.target not in _HEADS:
        raise ModelError("the exported model does not end in its softmax", got=last.target)
    output.args = ((last.args[0],),)
    graph.erase_node(last)
    return torch.fx.GraphModule(prepared, graph)


def _drop_out(x, rate: float, training: bool):
    return torch.nn.functional.dropout(x, rate_of(rate), training)
