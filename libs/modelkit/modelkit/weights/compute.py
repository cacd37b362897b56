"""Chooses the device and number type for this machine by a measurement at the start.

Some CPUs have bf16 units, some only emulate bf16 and are several times slower with it than with fp32, and
nothing the operating system reports says reliably which. So a matrix product of the size that a small
model's layers have is timed in both, and bf16 is taken only when it is clearly faster.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import torch

DTypeName = Literal["float32", "bfloat16"]
Preference = Literal["auto", "fp32", "bf16"]

ENVIRONMENT_VARIABLE = "OPENLEDGER_COMPUTE"

_BF16_MUST_WIN_BY = 1.2
"""bf16 costs casts around each operator that it cannot run, so a small lead in the matmul is no lead at
all."""

_ROWS, _INNER, _COLUMNS = 512, 576, 1536
"""A batch of 512 tokens through SmolLM2-135M's MLP: the shape that most of the time is spent in."""


@dataclass(frozen=True, kw_only=True)
class Compute:
    """What a process computes with. Recorded in every training manifest and evaluation report."""

    device: str
    """"cpu" or "cuda"."""
    dtype: DTypeName
    """The number type of base weights and activations. LoRA weights and their gradients stay fp32."""
    gflops: Mapping[str, float]
    """Measured matmul speed of one thread by dtype name, 10^9 operations a second; empty where the choice was
    not measured."""
    torch_version: str
    threads: int
    reason: str
    """One sentence: why this dtype."""

    @property
    def torch_dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.dtype == "bfloat16" else torch.float32

    def to_json(self) -> dict[str, object]:
        """A JSON object with the same fields; speeds rounded to whole GFLOPS, because more digits are
        noise."""
        return {**asdict(self), "gflops": {name: round(speed) for name, speed in self.gflops.items()}}


def measure(preference: Preference | None = None, seconds_each: float = 0.15) -> Compute:
    """Chooses the compute type; takes about 0.3 s on a CPU.

    `preference` overrides the environment variable OPENLEDGER_COMPUTE (fp32, bf16 or auto). Raises ValueError
    for any other word. CUDA is used when present, in bf16 where the card has it.
    """
    wish = preference or os.environ.get(ENVIRONMENT_VARIABLE, "auto")
    if wish not in ("auto", "fp32", "bf16"):
        raise ValueError(f"{ENVIRONMENT_VARIABLE}={wish!r}: must be fp32, bf16 or auto")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if wish != "auto":
        dtype: DTypeName = "bfloat16" if wish == "bf16" else "float32"
        return _compute(device, dtype, {}, f"asked for by {ENVIRONMENT_VARIABLE} or the caller")
    if device == "cuda":
        supported = torch.cuda.is_bf16_supported()
        return _compute(
            device,
            "bfloat16" if supported else "float32",
            {},
            "the GPU has bf16" if supported else "the GPU lacks bf16",
        )
    speeds = _matmul_gflops(seconds_each)
    faster = speeds["bfloat16"] > _BF16_MUST_WIN_BY * speeds["float32"]
    return _compute(
        device,
        "bfloat16" if faster else "float32",
        speeds,
        f"bf16 matmul runs at {speeds['bfloat16'] / speeds['float32']:.1f} times fp32's speed",
    )


def _compute(device: str, dtype: DTypeName, gflops: Mapping[str, float], reason: str) -> Compute:
    return Compute(
        device=device,
        dtype=dtype,
        gflops=dict(gflops),
        torch_version=torch.__version__,
        threads=torch.get_num_threads(),
        reason=reason,
    )


def _matmul_gflops(seconds_each: float) -> dict[str, float]:
    """Speeds by dtype name, on one thread: threads that share busy cores wait for each other and measure
    that.

    The types take turns and each keeps its best time, so that other processes can slow a timing, not the
    result.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        operands = {
            name: (torch.ones(_ROWS, _INNER, dtype=dtype), torch.ones(_COLUMNS, _INNER, dtype=dtype))
            for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))
        }
        best = dict.fromkeys(operands, float("inf"))
        for rows, weight in operands.values():
            torch.nn.functional.linear(rows, weight)  # the first call packs weights and picks a kernel
        end = time.perf_counter() + 2 * seconds_each
        while min(best.values()) == float("inf") or time.perf_counter() < end:
            for name, (rows, weight) in operands.items():
                start = time.perf_counter()
                torch.nn.functional.linear(rows, weight)
                best[name] = min(best[name], time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return {name: 2 * _ROWS * _INNER * _COLUMNS / seconds / 1e9 for name, seconds in best.items()}
