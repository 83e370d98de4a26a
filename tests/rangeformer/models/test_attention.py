"""Every attention against a slow twin that forms the n x n matrix: outputs and all gradients."""

import pytest
import torch

from rangeformer.models.attention import ATTENTIONS, GALERKIN_RIDGE


def naive_weights(name: str, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
    """The n x n attention matrix, from the definition."""
    width = keys.shape[-1]
    scores = queries @ keys.mT / width**0.5
    if name == "softmax":
        weights = scores.exp()
    elif name == "taylor":
        weights = 1 + scores + scores.square() / 2
    elif name == "elu":
        positive = [torch.where(x > 0, x + 1, x.exp()) for x in (queries, keys)]
        weights = positive[0] @ positive[1].mT
    else:
        gram = keys.mT @ keys
        ridge = GALERKIN_RIDGE * gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
        return queries @ torch.linalg.inv(gram + ridge * torch.eye(width, dtype=gram.dtype)) @ keys.mT
    return weights / weights.sum(-1, keepdim=True)


def example(n: int = 9, e: int = 4, f: int = 5) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 3, n, e), (2, 3, n, e), (2, 3, n, f)]
    return [torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]


@pytest.mark.parametrize("n", [9, 40])  # fewer and more tokens than features
@pytest.mark.parametrize("name", sorted(ATTENTIONS))
def test_equals_naive_twin_with_gradients(name, n):
    inputs = example(n)
    fast = ATTENTIONS[name](*inputs)
    slow = naive_weights(name, *inputs[:2]) @ inputs[2]
    torch.testing.assert_close(fast, slow)
    direction = torch.randn(fast.shape, generator=torch.Generator().manual_seed(1), dtype=fast.dtype)
    for got, expected in zip(
        torch.autograd.grad((fast * direction).sum(), inputs),
        torch.autograd.grad((slow * direction).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("name", sorted(ATTENTIONS))
def test_rows_have_no_order_and_no_number(name):
    queries, keys, values = (x.detach() for x in example())
    order = torch.randperm(9, generator=torch.Generator().manual_seed(2))
    expected = ATTENTIONS[name](queries, keys, values)
    mixed = ATTENTIONS[name](queries[..., order, :], keys[..., order, :], values[..., order, :])
    torch.testing.assert_close(mixed, expected[..., order, :])
    doubled = ATTENTIONS[name](*(torch.cat([x, x], dim=-2) for x in (queries, keys, values)))
    torch.testing.assert_close(doubled[..., :9, :], expected)


def test_galerkin_reproduces_values_in_the_span_of_the_keys():
    _, keys, values = (x.detach() for x in example(n=40))
    in_span = keys @ values[..., :4, :]
    got = ATTENTIONS["galerkin"](keys, keys, in_span)
    assert torch.linalg.vector_norm(got - in_span) < 5 * GALERKIN_RIDGE * torch.linalg.vector_norm(in_span)


@pytest.mark.parametrize("name", sorted(ATTENTIONS))
def test_zero_tokens_stay_finite(name):
    zeros = torch.zeros(1, 2, 6, 4)
    assert torch.isfinite(ATTENTIONS[name](zeros, zeros, zeros)).all()
