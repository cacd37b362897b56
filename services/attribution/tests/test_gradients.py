"""Per-example gradients are those that autograd gives example by example, and projection keeps inner
products."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel
from transformers import LlamaForCausalLM

from attribution.gradients import Example, PerExampleGradients, batches_by_length
from attribution.projection import Layout, ProjectionSpec

EXAMPLES = [
    Example((5, 6, 7), (8, 9)),
    Example((10, 11, 12, 13, 14), (15,)),
    Example((3,), (4, 5, 6, 7)),
    Example((20, 21), (22,)),
]


def looped(model: torch.nn.Module, example: Example) -> tuple[dict[str, torch.Tensor], float]:
    """One example's gradients, the plain way: an unpadded forward pass and autograd over the weights."""
    names = [name for name, _ in model.named_parameters() if ".lora_" in name]
    parameters = dict(model.named_parameters())
    for name in names:
        parameters[name].requires_grad_(True)
    ids = torch.tensor([example.prompt_ids + example.completion_ids])
    labels = ids.clone()
    labels[:, : len(example.prompt_ids)] = -100
    mean = model(input_ids=ids, labels=labels).loss
    loss = mean * len(example.completion_ids)
    gradients = torch.autograd.grad(loss, [parameters[name] for name in names])
    return dict(
        zip((name.removesuffix(".default.weight") for name in names), gradients, strict=True)
    ), loss.item()


def test_batched_gradients_equal_autograd_one_by_one(adapted: PeftModel) -> None:
    expected = [looped(adapted, example) for example in EXAMPLES]
    with PerExampleGradients(adapted, projection=None) as gradients:
        batch, losses = gradients(EXAMPLES)
        layout = gradients.layout
    for row, (by_name, loss) in enumerate(expected):
        assert losses[row] == pytest.approx(loss, rel=1e-5)
        for block in layout:
            np.testing.assert_allclose(
                batch[row, block.span], by_name[block.name].numpy().ravel(), rtol=1e-3, atol=2e-6
            )


def test_projected_gradients_are_the_projection_of_the_full_ones(adapted: PeftModel) -> None:
    spec = ProjectionSpec(seed=3, width=5, rank=2, halves=2)
    with PerExampleGradients(adapted, spec) as gradients:
        projected, _ = gradients(EXAMPLES)
        layout = gradients.layout
    by_name, _ = looped(adapted, EXAMPLES[0])
    for block in layout:
        full = by_name[block.name].numpy()
        long_input = block.name.endswith(".lora_A")
        left = spec.matrix(
            block.name, "out", size=full.shape[0], width=2 if long_input else 5, half=block.half
        )
        right = spec.matrix(
            block.name, "in", size=full.shape[1], width=5 if long_input else 2, half=block.half
        )
        np.testing.assert_allclose(
            projected[0, block.span], (left @ full @ right.T).ravel(), rtol=1e-3, atol=1e-5
        )


def test_inner_products_after_projection_are_unbiased() -> None:
    generator = np.random.default_rng(0)
    one, other = generator.normal(size=(2, 4, 40)).astype(np.float32)
    other += one
    truth = float((one * other).sum())
    estimates = []
    for seed in range(400):
        spec = ProjectionSpec(seed=seed, width=6, rank=2, halves=1)
        left, right = (
            spec.matrix("m", "out", size=4, width=2, half=0),
            spec.matrix("m", "in", size=40, width=6, half=0),
        )
        estimates.append(float(((left @ one @ right.T) * (left @ other @ right.T)).sum()))
    standard_error = float(np.std(estimates)) / len(estimates) ** 0.5
    assert abs(float(np.mean(estimates)) - truth) < 3 * standard_error
    assert standard_error < abs(truth) / 5


def test_signs_depend_on_seed_half_block_and_side_and_on_nothing_else() -> None:
    spec = ProjectionSpec(seed=1)
    one = spec.matrix("layer.lora_A", "in", size=50, width=4, half=0)
    assert np.array_equal(
        one, ProjectionSpec(seed=1, halves=5).matrix("layer.lora_A", "in", size=50, width=4, half=0)
    )
    assert set(np.unique(one)) == {-0.5, 0.5}
    for other in (
        spec.matrix("layer.lora_A", "in", size=50, width=4, half=1),
        spec.matrix("layer.lora_B", "in", size=50, width=4, half=0),
        spec.matrix("layer.lora_A", "out", size=50, width=4, half=0),
        ProjectionSpec(seed=2).matrix("layer.lora_A", "in", size=50, width=4, half=0),
    ):
        assert not np.array_equal(one, other)


def test_a_side_not_longer_than_its_width_is_kept() -> None:
    assert np.array_equal(ProjectionSpec().matrix("m", "in", size=3, width=4, half=0), np.eye(3))


def test_padding_changes_nothing(adapted: PeftModel) -> None:
    with PerExampleGradients(adapted, ProjectionSpec()) as gradients:
        together, _ = gradients(EXAMPLES)
        alone = np.concatenate([gradients([example])[0] for example in EXAMPLES])
    np.testing.assert_allclose(together, alone, rtol=1e-3, atol=1e-5)


def test_hooks_are_gone_after_closing(adapted: PeftModel) -> None:
    with PerExampleGradients(adapted, ProjectionSpec()):
        pass
    assert not any(module._forward_hooks for module in adapted.modules())


def test_a_model_without_an_adapter_is_refused(base: LlamaForCausalLM) -> None:
    with pytest.raises(ValueError, match="no LoRA"):
        PerExampleGradients(base, ProjectionSpec())


@given(st.lists(st.integers(1, 300), max_size=60), st.integers(1, 500))
def test_batches_hold_every_example_once_within_the_budget(lengths: list[int], budget: int) -> None:
    batches = batches_by_length(lengths, budget)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= budget


def test_layout_survives_json() -> None:
    layout = Layout.of({"a": 3, "b": 5}, halves=2)
    assert Layout.from_json(layout.to_json()) == layout
    assert [span.stop - span.start for span in layout.half_spans] == [8, 8]
