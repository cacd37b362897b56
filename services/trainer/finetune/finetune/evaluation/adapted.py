"""A model with an adapter for the time of a measurement, and its own weights again after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from modelkit.adapter import InvalidAdapter
from modelkit.weights.adapter import Adapter


@contextmanager
def adapted(model: PreTrainedModel, adapter: Adapter | None) -> Iterator[PreTrainedModel]:
    """The model as the adapter makes it; None leaves the base. Afterwards its weights are bit for bit the old
    ones.

    In fp32 the update is merged into the weights: as exact as computing it apart (rounding in the last place)
    and free of cost. In bf16 merging would round small updates away (a weight keeps 8 bits, a light adapter
    changes less than that), so there they are added to each layer's output, as they are when the model is
    served. Raises InvalidAdapter where the adapter does not fit the model.
    """
    if adapter is None:
        yield model
        return
    with ExitStack() as undo, torch.no_grad():
        for path, (a, b) in adapter.weights.items():
            layer = _layer(model, path, a, b)
            scaled_b = b.float() * adapter.config.scale
            if layer.weight.dtype == torch.float32:
                undo.callback(layer.weight.copy_, layer.weight.clone())
                layer.weight += (scaled_b @ a.float()).to(layer.weight.device)
            else:
                undo.callback(_add_to_output(layer, a.to(layer.weight), scaled_b.to(layer.weight)))
        yield model


def _layer(model: PreTrainedModel, path: str, a: Tensor, b: Tensor) -> nn.Linear:
    try:
        layer = model.get_submodule(path)
    except AttributeError:
        raise InvalidAdapter(f"the base model has no layer {path!r}") from None
    if not isinstance(layer, nn.Linear) or (layer.out_features, layer.in_features) != (
        b.shape[0],
        a.shape[1],
    ):
        raise InvalidAdapter(f"the adapter of {path!r} does not fit the base model's layer")
    return layer


def _add_to_output(layer: nn.Linear, a: Tensor, b: Tensor) -> Callable[[], None]:
    def add(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + (inputs[0] @ a.T) @ b.T

    return layer.register_forward_hook(add).remove
