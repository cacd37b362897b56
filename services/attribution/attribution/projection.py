"""Seeded random projections that reduce gradients while they are computed, with unbiased inner products.

A LoRA gradient is a matrix whose one side is the rank (16, say) and whose other side is a layer's width. A
sign matrix P [width, size] with entries +-1/sqrt(width) has E[P^T P] = I, so <G1 P^T, G2 P^T> estimates <G1,
G2> without bias; both sides projected (P_left G P_right^T) is the Kronecker form of Johnson-Lindenstrauss,
which never needs G itself: activations are projected before the sum over tokens. (Achlioptas 2003; the
factored form as in LoGra, arXiv 2405.13954.)

There are independent halves. Together they are the estimate; each alone is a replication, and their agreement measures
the projection's reliability. Signs come from SHAKE-256 of their name, not from a library's generator, so that a seed gives
the same signs on any machine and in any version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ProjectionSpec:
    """The parameters of a projection. Together with the block names they determine every sign."""

    seed: int = 0
    width: int = 4
    """Dimensions that a layer's long side keeps, in each half."""
    rank: int = 16
    """A rank side up to this length is not projected; a longer one is projected to this length."""
    halves: int = 2
    """Independent projections; at least 1. Agreement between halves needs 2."""

    def __post_init__(self) -> None:
        if min(self.width, self.rank, self.halves) < 1:
            raise ValueError(f"width, rank and halves must be at least 1, got {self}")

    def to_json(self) -> dict[str, int]:
        """Returns a JSON object with the same fields."""
        return asdict(self)

    def matrix(self, block: str, side: str, *, size: int, width: int, half: int) -> FloatArray:
        """Returns the sign matrix [min(width, size), size] of one side of one block; the identity if size <= width."""
        if size <= width:
            return np.eye(size, dtype=np.float32)
        name = f"openledger/projection/{self.seed}/{half}/{block}/{side}".encode()
        stream = hashlib.shake_256(name).digest((size * width + 7) // 8)
        bits = np.unpackbits(np.frombuffer(stream, dtype=np.uint8))
        signs = bits[: size * width].reshape(width, size).astype(np.float32)
        return (2 * signs - 1) / np.float32(np.sqrt(width))


@dataclass(frozen=True)
class Block:
    """The position of one module's gradient of one half in a projected vector."""

    name: str
    half: int
    offset: int
    size: int

    @property
    def span(self) -> slice:
        return slice(self.offset, self.offset + self.size)


@dataclass(frozen=True)
class Layout:
    """The division of a projected gradient vector [size]: half by half, block by block."""

    blocks: tuple[Block, ...]

    @classmethod
    def of(cls, sizes: dict[str, int], halves: int) -> Layout:
        """Returns the layout of blocks of `sizes` (name -> dimensions), in that order, once per half."""
        blocks: list[Block] = []
        offset = 0
        for half in range(halves):
            for name, size in sizes.items():
                blocks.append(Block(name, half, offset, size))
                offset += size
        return cls(tuple(blocks))

    @cached_property
    def size(self) -> int:
        return sum(block.size for block in self.blocks)

    @cached_property
    def halves(self) -> int:
        return 1 + max((block.half for block in self.blocks), default=0)

    @cached_property
    def half_spans(self) -> tuple[slice, ...]:
        """Returns the part of the vector that belongs to each half."""
        width = self.size // self.halves
        return tuple(slice(half * width, (half + 1) * width) for half in range(self.halves))

    def __iter__(self) -> Iterator[Block]:
        return iter(self.blocks)

    def to_json(self) -> dict[str, object]:
        """Returns a JSON object: halves, and sizes by name in order."""
        first = [block for block in self.blocks if block.half == 0]
        return {"halves": self.halves, "blocks": [[block.name, block.size] for block in first]}

    @classmethod
    def from_json(cls, value: dict[str, object]) -> Layout:
        """Returns the inverse of to_json. Raises ValueError for another shape."""
        blocks, halves = value.get("blocks"), value.get("halves")
        if not isinstance(blocks, list) or not isinstance(halves, int):
            raise ValueError("a layout has `halves` and `blocks`")
        return cls.of({str(name): int(size) for name, size in blocks}, halves)
