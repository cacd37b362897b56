"""A damped block inverse of the gradients' second moments, which gives common directions less weight.

Influence is g_q^T H^-1 g_i, with H the empirical Fisher sum g g^T / n cut into one block a module (and half),
and damped by a fraction of the block's mean eigenvalue (trace / dimensions), so that directions with little variance do
not dominate. Blocks as in EK-FAC and TRAK's practice (Grosse et al., arXiv 2308.03296,
section 2.4); here a block is small enough after projection to be inverted exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from attribution.projection import FloatArray, Layout


@dataclass(frozen=True)
class BlockPreconditioner:
    """The inverses of all blocks in sequence, each row-major: float32 [sum of block size squared]."""

    layout: Layout
    inverses: FloatArray

    @classmethod
    def fit(cls, gradients: FloatArray, layout: Layout, damping: float) -> BlockPreconditioner:
        """Returns the preconditioner of gradients [records, layout.size]. `damping` > 0 is the fraction of the mean eigenvalue.

        A block in which no record has a gradient gets a zero inverse, so it has no effect.
        """
        if damping <= 0:
            raise ValueError(f"damping must be above 0, got {damping}: with few records H is singular")
        parts = []
        for block in layout:
            part = np.asarray(gradients[:, block.span], dtype=np.float64)
            fisher = part.T @ part / max(len(part), 1)
            mean_eigenvalue = float(np.trace(fisher)) / block.size
            inverse = (
                np.zeros_like(fisher)
                if mean_eigenvalue == 0
                else np.linalg.inv(fisher + damping * mean_eigenvalue * np.eye(block.size))
            )
            parts.append(((inverse + inverse.T) / 2).astype(np.float32).ravel())
        return cls(layout, np.concatenate(parts))

    def apply(self, vectors: FloatArray) -> FloatArray:
        """Returns H^-1 applied to each row of [rows, layout.size]."""
        result = np.empty(vectors.shape, dtype=np.float32)
        start = 0
        for block in self.layout:
            stop = start + block.size * block.size
            inverse = self.inverses[start:stop].reshape(block.size, block.size)
            result[:, block.span] = np.asarray(vectors[:, block.span]) @ inverse
            start = stop
        return result

    def squared_norms(self, vectors: FloatArray, rows_at_once: int = 256) -> npt.NDArray[np.float64]:
        """Returns g^T H^-1 g of each row by half: float64 [halves, rows]. Reads a memory-mapped array in slices."""
        norms = np.empty((self.layout.halves, len(vectors)))
        for start in range(0, len(vectors), rows_at_once):
            part = np.asarray(vectors[start : start + rows_at_once])
            weighted = self.apply(part)
            for half, span in enumerate(self.layout.half_spans):
                norms[half, start : start + len(part)] = np.einsum(
                    "rd,rd->r", part[:, span], weighted[:, span], dtype=np.float64
                )
        return np.maximum(norms, 0.0)
