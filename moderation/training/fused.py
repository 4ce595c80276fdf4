"""Layers of the model in training, with fewer passes over memory than autograd would make.

What is not a matrix product mostly moves activations. Written out, the backward pass of an adapted
layer and of a norm reads and writes each of them once or twice.
"""

from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor


def linear(module: Any, inputs: Tensor) -> Tensor:
    """A linear layer without bias, ``(T, D)`` to ``(T, E)``, with an adapter or without.

    The adapter has no dropout. Raises `ValueError`: several are active.
    """
    if not isinstance(module, LoraLayer):
        plain: Tensor = module(inputs)
        return plain
    (name,) = module.active_adapters
    adapted: Tensor = _Adapted.apply(  # type: ignore[no-untyped-call]  # torch's
        inputs,
        module.get_base_layer().weight,
        module.lora_A[name].weight,
        module.lora_B[name].weight,
        module.scaling[name],
    )
    return adapted


def norm(module: Any, inputs: Tensor) -> Tensor:
    """A `Gemma3RMSNorm` of the last of any dimensions, whose weight is not trained.

    Source: `modeling_gemma3.py` of transformers.
    """
    normed: Tensor = _Normed.apply(inputs, module.weight, module.eps)  # type: ignore[no-untyped-call]
    return normed


class _Adapted(torch.autograd.Function):
    """``x @ W' + scaling * (x @ A') @ B'``, with gradients of x, A and B."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, down: Tensor, up: Tensor, scaling: float
    ) -> Tensor:
        low = inputs @ down.T
        ctx.save_for_backward(inputs, weight, down, up, low)
        ctx.scaling = scaling
        return (inputs @ weight.T).addmm_(low, up.T, alpha=scaling)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, None, Tensor, Tensor, None]:
        inputs, weight, down, up, low = ctx.saved_tensors
        to_low = (gradient @ up).mul_(ctx.scaling)
        to_up = (gradient.T @ low).mul_(ctx.scaling)
        to_inputs = None
        if ctx.needs_input_grad[0]:
            to_inputs = (gradient @ weight).addmm_(to_low, down)
        return to_inputs, None, to_low.T @ inputs, to_up, None


class _Normed(torch.autograd.Function):
    """``x / rms(x) * (1 + w)`` in float32, with the gradient of x."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, eps: float) -> Tensor:
        states = inputs.float()
        scale = 1 + weight.float()
        size = torch.linalg.vector_norm(states, dim=-1, keepdim=True)
        inverse = size.square_().div_(states.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(inputs, inverse, scale)
        normed: Tensor = (states * inverse).mul_(scale)
        return normed.to(inputs.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        inputs, inverse, scale = ctx.saved_tensors
        states = inputs.float()
        scaled = gradient * scale
        along = torch.linalg.vecdot(scaled, states)[..., None]
        along = along.mul_(inverse.square() / states.shape[-1])
        return scaled.addcmul_(states, along, value=-1).mul_(inverse).to(inputs.dtype), None, None
