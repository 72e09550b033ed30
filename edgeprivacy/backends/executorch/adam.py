"""Adam as one fused update of all variables."""

from __future__ import annotations

from torch.optim.adam import adam

from edgeprivacy.backends.executorch.frameworks import DEVICE, torch


class FusedAdam:
    """Adam with coupled L2 and moments of its own, one fused update for all variables."""

    def __init__(self, variables: list[torch.Tensor], learning_rate: float) -> None:
        self._variables, self._learning_rate = variables, learning_rate
        self._first = [torch.zeros_like(variable) for variable in variables]
        self._second = [torch.zeros_like(variable) for variable in variables]
        self._steps = [torch.zeros((), device=DEVICE) for _ in variables]

    @torch.no_grad()
    def step(self, gradients: list[torch.Tensor | None], weight_decay: float) -> None:
        """Update the variables; those without a gradient stay."""
        groups: tuple[list[torch.Tensor], ...] = (self._variables, self._first, self._second, self._steps)
        if any(gradient is None for gradient in gradients):
            used = [position for position, gradient in enumerate(gradients) if gradient is not None]
            groups = tuple([group[position] for position in used] for group in groups)
        variables, first, second, steps = groups
        # The fused update walks through memory: a kernel's gradient whose channels lie last, as those of
        # images that came as rows do, would be added to other weights than its own.
        laid_out = [gradient for gradient in gradients if gradient is not None]
        for position, (variable, gradient) in enumerate(zip(variables, laid_out, strict=True)):
            if gradient.stride() != variable.stride():
                laid_out[position] = torch.empty_like(variable).copy_(gradient)
        adam(
            variables,
            laid_out,
            first,
            second,
            [],
            steps,
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self._learning_rate,
            weight_decay=weight_decay,
            eps=1e-8,
            maximize=False,
        )
