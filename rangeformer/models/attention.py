"""Linear attention over the rows of a matrix: every variant costs O(n e^2), none knows n.

Each function maps queries, keys `(..., n, e)` and values `(..., n, f)` to `(..., n, f)`. The rows of a matrix
have no order, so nothing is causal and nothing is masked.

- `elu`: phi(x) = 1 + elu(x) (Katharopoulos et al., "Transformers are RNNs", ICML 2020, arXiv:2006.16236, eq. 7).
- `taylor`: the softmax's second-order Taylor series 1 + x + x^2 / 2, positive for every x
  (Keles et al. 2022, arXiv:2209.04881; Arora et al., "Based", 2024, arXiv:2402.18668).
- `galerkin`: Q (K^T K)^-1 K^T V, the least-squares fit of the values on the keys, evaluated at the queries. With
  Q = K it is the orthogonal projection H (H^T H)^-1 H^T of the values on the span of the tokens
  (Cao, "Choose a Transformer: Fourier or Galerkin", NeurIPS 2021, arXiv:2105.14995, without its Gram matrix).
- `softmax`: the quadratic reference.
"""

from collections.abc import Callable

import torch

from rangeformer.shapes import Float, Tensor

GALERKIN_RIDGE = 1e-3  # relative to the mean eigenvalue of the Gram matrix
Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def elu_attention(
    queries: Float[Tensor, "*b n e"], keys: Float[Tensor, "*b n e"], values: Float[Tensor, "*b n f"]
) -> Float[Tensor, "*b n f"]:
    """Linear attention with the feature map 1 + elu(x)."""
    return _feature_attention(1 + torch.nn.functional.elu(queries), 1 + torch.nn.functional.elu(keys), values)


def taylor_attention(
    queries: Float[Tensor, "*b n e"], keys: Float[Tensor, "*b n e"], values: Float[Tensor, "*b n f"]
) -> Float[Tensor, "*b n f"]:
    """Linear attention with weights 1 + s + s^2 / 2, s = q . k / sqrt(e)."""
    n, width = keys.shape[-2:]
    if n <= 1 + width + width**2:
        # fewer tokens than features: the same sums, in the order that costs O(n^2)
        scores = queries @ keys.mT / width**0.5
        weights = 1 + scores + scores.square() / 2
        return (weights @ values) / weights.sum(-1, keepdim=True)
    return _feature_attention(_taylor_features(queries), _taylor_features(keys), values)


def galerkin_attention(
    queries: Float[Tensor, "*b n e"], keys: Float[Tensor, "*b n e"], values: Float[Tensor, "*b n f"]
) -> Float[Tensor, "*b n f"]:
    """Q (K^T K + ridge)^-1 K^T V with a ridge relative to the mean eigenvalue of K^T K."""
    n, width = keys.shape[-2:]
    gram = keys.mT @ keys / n
    level = gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    floor = torch.finfo(keys.dtype).tiny ** 0.5  # keeps an all-zero table of keys solvable
    identity = torch.eye(width, dtype=keys.dtype, device=keys.device)
    regularised = gram + (GALERKIN_RIDGE * level + floor) * identity
    return queries @ torch.linalg.solve(regularised, keys.mT @ values / n)


def softmax_attention(
    queries: Float[Tensor, "*b n e"], keys: Float[Tensor, "*b n e"], values: Float[Tensor, "*b n f"]
) -> Float[Tensor, "*b n f"]:
    """Softmax attention, O(n^2): the reference, not for large n."""
    return torch.nn.functional.scaled_dot_product_attention(queries, keys, values)


ATTENTIONS: dict[str, Attention] = {
    "elu": elu_attention,
    "taylor": taylor_attention,
    "galerkin": galerkin_attention,
    "softmax": softmax_attention,
}


def _feature_attention(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Normalised attention with weights queries . keys, positive by the choice of features."""
    state = keys.mT @ values  # (..., e, f)
    mass = queries @ keys.sum(-2).unsqueeze(-1)  # (..., n, 1)
    return (queries @ state) / mass


def _taylor_features(x: Tensor) -> Tensor:
    """Features phi with phi(q) . phi(k) = 1 + s + s^2 / 2, s = q . k / sqrt(e): `(..., n, 1 + e + e^2)`."""
    x = x / x.shape[-1] ** 0.25
    squares = (x.unsqueeze(-1) * x.unsqueeze(-2)).flatten(-2) / 2**0.5
    return torch.cat([torch.ones_like(x[..., :1]), x, squares], dim=-1)
