"""Computes per-example gradients of an adapter's LoRA matrices: a batch in one forward and one backward pass.

For y = W x (a lora_A or lora_B Linear) the gradient of example i's loss is the sum over its tokens of dy_it x_it^T. Both
factors occur anyway: x in the forward pass, dy in the backward pass. Hooks project them and sum their products, so there
is neither a batch's full gradient nor a second backward pass. No weight requires a gradient; the input embeddings do,
which makes the backward pass reach every layer.

Batches are padded on the right: under causal attention no token depends on later ones, so padding needs no mask and its
output gradient is exactly zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from attribution.projection import FloatArray, Layout, ProjectionSpec


@dataclass(frozen=True)
class Example:
    """A prompt and its completion as token ids. The loss is the sum of the completion's token losses, in nats."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.prompt_ids or not self.completion_ids:
            raise ValueError("an example needs at least one prompt token and one completion token")

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)


def batches_by_length(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Returns indices in groups of similar length, each of at most `max_tokens` padded tokens (or a single longer example).

    The order depends on the lengths alone, so that an interrupted pass can resume.
    """
    order = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
    batches: list[list[int]] = []
    for index in order:
        if batches and (len(batches[-1]) + 1) * lengths[index] <= max_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


class PerExampleGradients(AbstractContextManager["PerExampleGradients"]):
    """Computes projected gradients of `model`'s LoRA matrices. A context manager, because it installs hooks.

    `model` is a causal language model of transformers with a PEFT LoRA adapter; this puts it into evaluation mode and
    freezes its parameters. `projection` None gives the full gradients, for tests and small models. The model computes in
    its own number type; projections and sums over tokens are always fp32. Raises ValueError if the model has no LoRA
    matrices of `adapter`.
    """

    def __init__(self, model: nn.Module, projection: ProjectionSpec | None, adapter: str = "default") -> None:
        model.eval()
        model.requires_grad_(False)
        self._model: Any = model
        linears = lora_linears(model, adapter)
        if not linears:
            raise ValueError(f"the model has no LoRA matrices of adapter {adapter!r}")
        halves = projection.halves if projection else 1
        self._sides = {name: _Sides(name, linear, projection, halves) for name, linear in linears.items()}
        self.layout = Layout.of({name: sides.size for name, sides in self._sides.items()}, halves)
        self._offsets = {(block.name, block.half): block.span for block in self.layout}
        self._result = torch.empty(0)
        self._handles = [linear.register_forward_hook(self._hook(name)) for name, linear in linears.items()]

    def __call__(self, examples: Sequence[Example]) -> tuple[FloatArray, FloatArray]:
        """Returns (gradients [batch, layout.size], losses [batch]), both float32."""
        tokens, first, last = _pad(examples)
        device = next(self._model.parameters()).device
        self._result = torch.zeros(len(examples), self.layout.size, device=device)
        with torch.enable_grad():
            embeddings = self._model.get_input_embeddings()(tokens.to(device)).detach().requires_grad_(True)
            keep = torch.arange(first, last, device=device)
            logits = self._model(inputs_embeds=embeddings, logits_to_keep=keep, use_cache=False).logits
            losses = _completion_losses(logits, examples, first)
            losses.sum().backward()  # type: ignore[no-untyped-call]
        gradients = self._result.cpu().numpy()
        self._result = torch.empty(0)
        return gradients, losses.detach().float().cpu().numpy()

    @torch.no_grad()
    def loss(self, example: Example) -> float:
        """Returns the example's loss with the model in its current state (the adapter may be disabled)."""
        tokens, first, last = _pad([example])
        device = next(self._model.parameters()).device
        keep = torch.arange(first, last, device=device)
        logits = self._model(input_ids=tokens.to(device), logits_to_keep=keep, use_cache=False).logits
        return float(_completion_losses(logits, [example], first)[0])

    def close(self) -> None:
        """Removes the hooks from the model."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _hook(self, name: str) -> Any:
        sides = self._sides[name]

        def forward(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if not output.requires_grad:
                return
            seen = sides.project_input(inputs[0].detach())

            def backward(gradient: Tensor) -> None:
                for half, product in enumerate(sides.products(seen, gradient)):
                    self._result[:, self._offsets[name, half]] += product

            output.register_hook(backward)  # type: ignore[no-untyped-call]

        return forward


def lora_linears(model: nn.Module, adapter: str) -> dict[str, nn.Linear]:
    """Returns one adapter's lora_A and lora_B Linears, in the model's order, by a name without the adapter's: projections
    depend on that name, and must not depend on what a process calls an adapter."""
    endings = tuple(f".lora_{side}.{adapter}" for side in "AB")
    return {
        name.removesuffix(f".{adapter}"): module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name.endswith(endings)
    }


class _Sides:
    """One module's two projections: inputs [batch, tokens, in] and output gradients [batch, tokens, out]."""

    def __init__(self, name: str, linear: nn.Linear, spec: ProjectionSpec | None, halves: int) -> None:
        long_input = name.endswith(".lora_A")
        self._halves = halves
        self._input, self._output = (
            self._stack(name, side, size=size, spec=spec, is_long=is_long, device=linear.weight.device)
            for side, size, is_long in (
                ("in", linear.in_features, long_input),
                ("out", linear.out_features, not long_input),
            )
        )
        self._inputs_each = self._width(linear.in_features, spec, long_input)
        self._outputs_each = self._width(linear.out_features, spec, not long_input)
        self.size = self._inputs_each * self._outputs_each

    def project_input(self, inputs: Tensor) -> Tensor:
        """Returns [batch, tokens, halves * width], or the inputs themselves if that side is not projected."""
        return inputs.float() if self._input is None else inputs.float() @ self._input

    def products(self, inputs: Tensor, gradient: Tensor) -> Iterator[Tensor]:
        """Yields, for each half, the sum over tokens of the outer products: [batch, size]."""
        outputs = gradient.float() if self._output is None else gradient.float() @ self._output
        for half in range(self._halves):
            left = self._part(outputs, self._output, half, self._outputs_each)
            right = self._part(inputs, self._input, half, self._inputs_each)
            yield torch.bmm(left.transpose(1, 2), right).flatten(1)

    @staticmethod
    def _part(values: Tensor, projection: Tensor | None, half: int, width: int) -> Tensor:
        return values if projection is None else values[..., half * width : (half + 1) * width]

    @staticmethod
    def _width(size: int, spec: ProjectionSpec | None, is_long: bool) -> int:
        return size if spec is None else min(size, spec.width if is_long else spec.rank)

    def _stack(
        self,
        name: str,
        side: str,
        *,
        size: int,
        spec: ProjectionSpec | None,
        is_long: bool,
        device: torch.device,
    ) -> Tensor | None:
        width = self._width(size, spec, is_long)
        if spec is None or width == size:
            return None
        halves = [spec.matrix(name, side, size=size, width=width, half=half) for half in range(self._halves)]
        return torch.from_numpy(np.concatenate(halves)).T.contiguous().to(device)


def _pad(examples: Sequence[Example]) -> tuple[Tensor, int, int]:
    """Returns token ids [batch, tokens], and the positions [first, last) whose logits predict a completion token."""
    longest = max(len(example) for example in examples)
    tokens = torch.zeros(len(examples), longest, dtype=torch.long)
    for row, example in enumerate(examples):
        tokens[row, : len(example)] = torch.tensor(example.prompt_ids + example.completion_ids)
    return tokens, min(len(example.prompt_ids) for example in examples) - 1, longest - 1


def _completion_losses(logits: Tensor, examples: Sequence[Example], first: int) -> Tensor:
    """Returns each completion's sum of negative log-likelihoods [batch]; logits [batch, kept positions, vocabulary]."""
    rows: list[int] = []
    positions: list[int] = []
    targets: list[int] = []
    for row, example in enumerate(examples):
        rows += [row] * len(example.completion_ids)
        positions += range(len(example.prompt_ids) - 1 - first, len(example) - 1 - first)
        targets += example.completion_ids
    kept = logits[torch.tensor(rows), torch.tensor(positions)].float()
    each = nn.functional.cross_entropy(kept, torch.tensor(targets, device=logits.device), reduction="none")
    owners = torch.tensor(rows, device=logits.device)
    return torch.zeros(len(examples), device=logits.device).index_add(0, owners, each)
