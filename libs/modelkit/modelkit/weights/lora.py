"""LoRA over stacked slots: one base model, several adapters in one batch, one of them per row.

Every linear layer of the decoder becomes

    base(x) + (x A[slot]^T) (scale[slot] B[slot])^T          (Hu et al. 2021, arXiv 2106.09685, equation 3)

with a slot for each row; slot 0 is no adapter. The factors of all slots lie in two tensors per layer,
`[slots, rank, in]` and `[slots, rank, out]`; smaller ranks are padded with zeros, which change nothing.

How a mixed batch is computed was chosen by measuring SmolLM2's layers on 2 cores. One token a row (decoding):
the factors of the slots in use are laid side by side and all rows meet all of them in two products, the
foreign results being set to zero; this reads each weight once and beats a gather per row and a loop per slot
alike. Many tokens a row (prefill): rows are grouped by slot, because foreign results would cost real time.

Weights come from `modelkit.weights.adapter`, which has checked them. Not thread-safe: one thread loads, unloads and
runs the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from modelkit.adapter import InvalidAdapter
from modelkit.weights.adapter import Adapter

BASE_SLOT = 0


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """The slot of each row. Computed once for a batch and read by every layer."""

    rows: tuple[int, ...]
    active: tuple[int, ...]
    """Distinct slots in use, without the base's."""
    active_index: Tensor
    row_position: Tensor
    """`[rows, 1, 1]`: index of the row's slot in `active`; -1 for the base."""
    groups: tuple[tuple[int, Tensor], ...]
    """(slot, indices of its rows) for each active slot."""

    @property
    def uniform(self) -> bool:
        return len(self.active) == 1 and BASE_SLOT not in self.rows

    def foreign(self, rank: int) -> Tensor:
        """`[rows, 1, active * rank]`: true where a column belongs to another row's adapter."""
        columns = torch.arange(len(self.active) * rank, device=self.row_position.device) // rank
        return columns != self.row_position


@dataclass
class _Routing:
    plan: _Plan | None = None
    masks: dict[int, Tensor] = field(default_factory=dict)
    """`_Plan.foreign` by rank."""


class SlotLinear(nn.Module):
    """A frozen linear layer with LoRA slots. Costs nothing until an adapter that touches it is loaded."""

    def __init__(self, base: nn.Linear, slots: int, routing: _Routing) -> None:
        super().__init__()
        self.base = base
        self._slots = slots
        self._routing = routing
        self._filled: set[int] = set()
        self._stacks: tuple[Tensor, Tensor] | None = None
        self._side_by_side: tuple[tuple[int, ...], Tensor, Tensor] | None = None

    def fill(self, slot: int, a: Tensor, scaled_b: Tensor) -> None:
        """Puts A `[rank, in]` and scale * B `[out, rank]` in a slot; grows all slots when the rank is new."""
        rank = a.shape[0]
        stack_a, stack_b = self._grown(rank)
        stack_a[slot].zero_()
        stack_b[slot].zero_()
        stack_a[slot, :rank].copy_(a)
        stack_b[slot, :rank].copy_(scaled_b.T)
        self._stacks, self._side_by_side = (stack_a, stack_b), None
        self._filled.add(slot)

    def clear(self, slot: int) -> None:
        """Empties a slot; frees the stacks with the last one."""
        if slot in self._filled and self._stacks is not None:
            self._filled.discard(slot)
            self._side_by_side = None
            for stack in self._stacks:
                stack[slot].zero_()
            if not self._filled:
                self._stacks = None

    def forward(self, x: Tensor) -> Tensor:
        """`[rows, tokens, in]` -> `[rows, tokens, out]`."""
        y: Tensor = self.base(x)
        plan = self._routing.plan
        if plan is None or self._stacks is None or self._filled.isdisjoint(plan.active):
            return y
        if plan.uniform:
            a, b = self._stacks
            return y + (x @ a[plan.active[0]].T) @ b[plan.active[0]]
        return self._decode(x, y, plan) if x.shape[1] == 1 else self._prefill(x, y, plan)

    def _decode(self, x: Tensor, y: Tensor, plan: _Plan) -> Tensor:
        if self._side_by_side is None or self._side_by_side[0] != plan.active:
            assert self._stacks is not None
            a, b = (stack[plan.active_index].flatten(0, 1) for stack in self._stacks)
            self._side_by_side = (plan.active, a, b)
        _, a, b = self._side_by_side
        rank = a.shape[0] // len(plan.active)
        if (foreign := self._routing.masks.get(rank)) is None:
            foreign = self._routing.masks[rank] = plan.foreign(rank)
        # Filled, not multiplied: a foreign product may overflow, and inf * 0 is NaN.
        return y + (x @ a.T).masked_fill(foreign, 0) @ b

    def _prefill(self, x: Tensor, y: Tensor, plan: _Plan) -> Tensor:
        assert self._stacks is not None
        a, b = self._stacks
        for slot, rows in plan.groups:
            if slot in self._filled:
                y = y.index_add(0, rows, (x.index_select(0, rows) @ a[slot].T) @ b[slot])
        return y

    def _grown(self, rank: int) -> tuple[Tensor, Tensor]:
        old = self._stacks
        if old is not None and old[0].shape[1] >= rank:
            return old
        weight = self.base.weight
        new = (
            weight.new_zeros(self._slots, rank, weight.shape[1]),
            weight.new_zeros(self._slots, rank, weight.shape[0]),
        )
        if old is not None:
            for grown, stack in zip(new, old, strict=True):
                grown[:, : stack.shape[1]].copy_(stack)
        return new


class SlotBank:
    """The slots of a whole model. Attaching replaces its decoder's linear layers in place; the head stays.

    `slots` counts adapters: slots 1..slots can be loaded, slot 0 is the base.
    """

    def __init__(self, model: nn.Module, slots: int) -> None:
        if slots < 1:
            raise ValueError(f"slots={slots}: at least one is needed")
        self.slots = slots
        self._routing = _Routing()
        self._layers: dict[str, SlotLinear] = {}
        self._device = next(model.parameters()).device
        for path, module in list(model.named_modules()):
            # A numbered segment is a decoder layer: embeddings and the head have none.
            if type(module) is nn.Linear and any(segment.isdigit() for segment in path.split(".")):
                parent, _, name = path.rpartition(".")
                wrapper = SlotLinear(module, slots + 1, self._routing)
                setattr(model.get_submodule(parent), name, wrapper)
                self._layers[path] = wrapper

    def check(self, adapter: Adapter) -> None:
        """Raises InvalidAdapter when the adapter does not fit this model; changes nothing."""
        for path, (a, b) in adapter.weights.items():
            layer = self._layers.get(path)
            if layer is None:
                raise InvalidAdapter(f"the base model has no linear layer {path!r}")
            found, expected = (a.shape[1], b.shape[0]), (layer.base.in_features, layer.base.out_features)
            if found != expected:
                raise InvalidAdapter(
                    f"the adapter of {path!r} maps {found[0]} to {found[1]} values, "
                    f"the base model's layer {expected[0]} to {expected[1]}"
                )

    def load(self, slot: int, adapter: Adapter) -> None:
        """Puts an adapter in a slot and replaces its former content. When it raises InvalidAdapter, nothing changed."""
        self._check_slot(slot)
        self.check(adapter)
        scaled = {}
        for path, (a, b) in adapter.weights.items():
            weight = self._layers[path].base.weight
            # Scaled before the cast: in bf16 the product rounds once instead of twice.
            scaled[path] = a.to(weight), (b.float() * adapter.config.scale).to(weight)
            # 0 * inf is NaN: one overflowed factor would reach the rows of all adapters in a batch.
            if not all(bool(torch.isfinite(factor).all()) for factor in scaled[path]):
                raise InvalidAdapter(f"the adapter of {path!r} overflows {weight.dtype}")
        self.unload(slot)
        for path, (a, b) in scaled.items():
            self._layers[path].fill(slot, a, b)

    def unload(self, slot: int) -> None:
        """Makes a slot behave as the base."""
        self._check_slot(slot)
        for layer in self._layers.values():
            layer.clear(slot)

    def route(self, rows: Sequence[int]) -> None:
        """Sets the slot of each row for the next forward passes. Cheap when nothing changed."""
        key = tuple(rows)
        if self._routing.plan is None or self._routing.plan.rows != key:
            self._routing.plan = self._plan(key)
            self._routing.masks.clear()

    def _plan(self, rows: tuple[int, ...]) -> _Plan:
        for slot in rows:
            if slot != BASE_SLOT:
                self._check_slot(slot)
        active = tuple(sorted(set(rows) - {BASE_SLOT}))
        position = [active.index(slot) if slot != BASE_SLOT else -1 for slot in rows]

        def tensor(values: Sequence[int]) -> Tensor:
            return torch.tensor(values, dtype=torch.long, device=self._device)

        return _Plan(
            rows=rows,
            active=active,
            active_index=tensor(active),
            row_position=tensor(position).view(-1, 1, 1),
            groups=tuple((slot, tensor([i for i, s in enumerate(rows) if s == slot])) for slot in active),
        )

    def _check_slot(self, slot: int) -> None:
        if not 1 <= slot <= self.slots:
            raise IndexError(f"slot {slot} is outside 1..{self.slots}")
