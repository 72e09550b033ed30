"""Networks: the built-in ones and the user's factories, all as a body that answers logits and a softmax (or
sigmoid) of their own."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgeprivacy.backends.executorch.built_in import Cnn, Mlp, ResNet8, ResNet8WithoutNorm
from edgeprivacy.backends.executorch.frameworks import torch, use_own_threads
from edgeprivacy.backends.executorch.large_nets import MobileNetV2, ResNet18
from edgeprivacy.data.factories import call_factory, load_factory, parameters
from edgeprivacy.errors import ModelError
from edgeprivacy.recipe_sections import ModelSection

nn = torch.nn
WEIGHTED = (nn.Linear, nn.Conv2d)
BUILT_IN = {
    "mlp": Mlp,
    "cnn": Cnn,
    "resnet": ResNet8,
    "resnet-no-norm": ResNet8WithoutNorm,
    "resnet18": ResNet18,
    "mobilenetv2": MobileNetV2,
}
RawBuilder = Callable[[], nn.Module]
Builder = Callable[[], "Classifier"]
_PROBE_ROWS = 4


class Classifier(nn.Module):
    """A network that answers probabilities, and logits where the loss needs them.

    Args:
        body: Rows [batch, ...] to logits [batch, classes], or [batch, 1] for one sigmoid unit.
        head: "softmax" or "sigmoid".
    """

    def __init__(self, body: nn.Module, head: str) -> None:
        super().__init__()
        self.body, self.head = body, head

    def logits(self, x):
        """Logits [batch, classes or 1]."""
        return self.body(x)

    def forward(self, x):
        """Probabilities [batch, classes or 1]: what the file answers."""
        logits = self.body(x)
        return torch.sigmoid(logits) if self.head == "sigmoid" else torch.softmax(logits, dim=-1)


def raw_builder(
    section: ModelSection, classes: int, input_shape: tuple[int, ...], scale: float
) -> RawBuilder:
    """A function that builds the network as its author wrote it, with fresh initial weights each time.

    Raises:
        ModelError: No such network, or one that does not take such rows.
    """
    source = section.source
    if source == "auto":
        source = "mlp" if len(input_shape) == 1 else "resnet"
    if source in BUILT_IN:
        if source != "mlp" and len(input_shape) != 3:
            raise ModelError(
                f"the built-in '{source}' takes images [height, width, channels]",
                got=f"rows of shape {input_shape}",
            )
        return lambda: BUILT_IN[source](input_shape, classes, scale, section.dropout)
    if ":" not in source or Path(source).exists():
        raise ModelError(
            f"model {source} cannot be used: a file of torch holds weights, or code that loading would run",
            allowed=f"{', '.join(BUILT_IN)}, or FILE.py:FUNCTION",
            hint="give the network as --model FILE.py:FUNCTION and its state dict as --weights",
        )
    factory = load_factory(source, "model", error=ModelError)

    def build() -> nn.Module:
        offered = {"classes": classes, "input_shape": input_shape}
        wanted = {name: value for name, value in offered.items() if name in parameters(factory)}
        module = call_factory(factory, source, "model", error=ModelError, **wanted)
        use_own_threads()
        if not isinstance(module, nn.Module):
            raise ModelError(
                f"model {source} is no torch model", got=type(module).__name__, allowed="a torch.nn.Module"
            )
        try:
            # A factory may return the same object each time: what one release trains is not another's start.
            own = copy.deepcopy(module).float().cpu()
        except Exception as error:
            raise ModelError(f"model {source} cannot be copied", got=_line(error)) from None
        for parameter in own.parameters():
            parameter.data = parameter.data.contiguous()
        return own

    return build


def builder(
    raw: RawBuilder, source: str, classes: int, input_shape: tuple[int, ...], label_sets: bool = False
) -> Builder:
    """A function that builds the network as a `Classifier`, with fresh initial weights each time; with
    `label_sets` one that answers a sigmoid for each of `classes` independent labels.

    Raises:
        ModelError: When called: the network does not take such rows, or answers something else than logits or
            probabilities of so many classes.
    """

    def build() -> Classifier:
        module = raw()
        head = _separate_head(module, source, classes, input_shape, label_sets)
        return Classifier(module, head)

    return build


def probe_rows(input_shape: tuple[int, ...], rows: int = _PROBE_ROWS) -> torch.Tensor:
    """Float rows [rows, *input_shape] to try a network on; always the same."""
    return torch.randn((rows, *input_shape), generator=torch.Generator().manual_seed(0))


def _separate_head(
    module: nn.Module, source: str, classes: int, input_shape: tuple[int, ...], label_sets: bool
) -> str:
    """Take a softmax or sigmoid off the module's end; which of the two its probabilities come by."""
    ends: list[tuple[str, nn.Module, torch.Tensor]] = []
    hooks = [
        layer.register_forward_hook(
            lambda layer, given, answer, name=name: ends.append((name, layer, answer))
        )
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Softmax | nn.LogSoftmax | nn.Sigmoid)
    ]
    answer = _try_rows(module, source, input_shape)
    for hook in hooks:
        hook.remove()
    if not isinstance(answer, torch.Tensor) or answer.dim() != 2 or len(answer) != _PROBE_ROWS:
        got = tuple(answer.shape) if isinstance(answer, torch.Tensor) else type(answer).__name__
        raise ModelError(
            f"model {source} must answer one row of logits or probabilities for each row",
            got=f"{got} for {_PROBE_ROWS} rows",
            allowed=f"a tensor of shape [{_PROBE_ROWS}, {classes}]",
        )
    gives = answer.shape[1]
    if gives != classes and not (gives == 1 and classes == 2 and not label_sets):
        raise ModelError(
            f"model {source} has another number of {'labels' if label_sets else 'classes'}",
            got=f"{gives} outputs",
            allowed=f"{classes} {'labels' if label_sets else 'classes'}",
        )
    sigmoids = gives == 1 or label_sets
    last = [(name, layer) for name, layer, out in ends if out is answer]
    if last:
        calls = sum(layer is last[-1][1] for _, layer, _ in ends)
        _remove_last(module, source, *last[-1], sigmoids, calls)
    elif _looks_like_probabilities(answer, sigmoids):
        raise ModelError(
            f"model {source} answers probabilities that no layer of its own makes: the loss needs its logits",
            hint="let it return logits, or make nn.Softmax(dim=-1) (one unit: nn.Sigmoid()) its last layer",
        )
    return "sigmoid" if sigmoids else "softmax"


def _try_rows(module: nn.Module, source: str, input_shape: tuple[int, ...]):
    training = module.training
    try:
        with torch.no_grad():
            return module.eval()(probe_rows(input_shape))
    except Exception as error:
        raise ModelError(
            f"model {source} does not take rows of shape {list(input_shape)}",
            got=_line(error),
            hint="rows come in the data's own layout: images as [height, width, channels], in raw units",
        ) from None
    finally:
        module.train(training)


def _remove_last(
    module: nn.Module, source: str, name: str, layer: nn.Module, sigmoids: bool, calls: int
) -> None:
    if isinstance(layer, nn.Sigmoid) != sigmoids:
        raise ModelError(
            f"model {source} must end in logits, in a softmax, or in one sigmoid unit (one for each "
            "label where rows have several)",
            got=f"{type(layer).__name__} over {'one output or labels' if sigmoids else 'several classes'}",
        )
    if not name or calls > 1:
        raise ModelError(
            f"the {type(layer).__name__} that model {source} ends in cannot be taken off it",
            got="it is the whole model" if not name else "it is used elsewhere in the model, too",
            hint="let the model return logits",
        )
    owner, _, attribute = name.rpartition(".")
    setattr(module.get_submodule(owner), attribute, nn.Identity())


def _looks_like_probabilities(answer: torch.Tensor, sigmoids: bool) -> bool:
    if sigmoids:
        return bool(((answer > 0) & (answer < 1)).all()) and bool((answer - 0.5).abs().max() > 1e-6)
    return bool((answer >= 0).all()) and bool(((answer.sum(dim=1) - 1).abs() < 1e-4).all())


def weighted_layers(classifier: Classifier, input_shape: tuple[int, ...]) -> list[tuple[str, nn.Module]]:
    """Name and layer of every linear and convolution layer, in the order in which they first run; one that
    runs twice stands there once, as its weights in a file."""
    called: dict[str, nn.Module] = {}

    def note(name: str, layer: nn.Module) -> None:
        called.setdefault(name, layer)

    hooks = [
        layer.register_forward_hook(lambda layer, given, answer, name=name: note(name, layer))
        for name, layer in classifier.body.named_modules()
        if isinstance(layer, WEIGHTED)
    ]
    training = classifier.training
    with torch.no_grad():
        classifier.eval()(probe_rows(input_shape).to(next(classifier.parameters()).device))
    classifier.train(training)
    for hook in hooks:
        hook.remove()
    return list(called.items())


def is_depthwise(layer: nn.Module) -> bool:
    """Whether a layer filters each channel by itself."""
    return isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels > 1


def parameter_of(layer: str) -> str:
    """Name, in a classifier, of the weights of a layer of its body."""
    return f"body.{layer}.weight" if layer else "body.weight"


def fitting_weights(
    found: dict[str, torch.Tensor], classifier: Classifier, origin: str, allowed: str
) -> list[np.ndarray]:
    """Weights by name as a list in the classifier's order.

    Raises:
        ModelError: Names or shapes differ, or a weight is no finite number.
    """
    wanted = classifier.body.state_dict()
    for what, names in (
        ("lacks", [name for name in wanted if name not in found]),
        ("holds unknown", [name for name in found if name not in wanted]),
    ):
        if names:
            raise ModelError(
                f"{origin} does not fit the model: it {what} {', '.join(names[:5])}", allowed=allowed
            )
    for name, value in wanted.items():
        if found[name].shape != value.shape:
            raise ModelError(
                f"{origin} does not fit the model at '{name}'",
                got=list(found[name].shape),
                allowed=str(list(value.shape)),
            )
        if not torch.isfinite(found[name].float()).all():
            raise ModelError(f"{origin} holds NaN or infinity at '{name}'")
    return [
        np.array(found[name].detach().cpu().to(value.dtype).numpy(), order="C")
        for name, value in wanted.items()
    ]


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
