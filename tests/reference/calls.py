"""The calls: every driver, method, type and batch, every sketching algorithm, Gaussian-process steps and predictions.

A call returns numbers and tensors by name. It draws everything from seeds and runs on one thread.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import gpytorch
import scipy.sparse
import torch
from torch import Tensor

import rangeformer as rf
import sketching
from gp_integration import settings
from tests.reference.names import EVAL_TOLERANCE, GP_TOLERANCE, LEARNED_KRYLOV, SKETCH_TOLERANCE

F32, F64 = torch.float32, torch.float64
TYPES = {"float32": F32, "float64": F64}
CALLS: dict[str, Callable[[], dict[str, Any]]] = {}
# of a result, where it has them
_FIELDS = [
    "value",
    "values",
    "vectors",
    "residual_norms",
    "gradient_norms",
    "errors",
    "error",
    "converged",
    "standard_error",
    "inv_quad",
    "logdet",
    "U",
    "S",
    "Vh",
    "Q",
    "relative_error",
    "num_iterations",
    "num_matvecs",
    "num_passes",
    "num_entries",
    "num_probes",
    "fallback",
    "preconditioner",
]


def add(name: str, call: Callable[[], Any]) -> None:
    CALLS[name] = lambda: evidence(call())


def evidence(result: Any) -> dict[str, Any]:
    """The fields of a result worth comparing, those of the results inside it too."""
    if isinstance(result, dict):
        return result
    if isinstance(result, Tensor):
        return {"value": result}
    found = {field: getattr(result, field) for field in _FIELDS if hasattr(result, field)}
    found = {field: value for field, value in found.items() if not callable(value)}
    for field in dataclasses.fields(result) if dataclasses.is_dataclass(result) else ():
        inner = getattr(result, field.name)
        if isinstance(inner, (rf.Solution, rf.LogDeterminant)):
            found |= {f"{field.name}.{key}": value for key, value in evidence(inner).items()}
    return found


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(*shape: int, dtype: torch.dtype = F64, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=F64).to(dtype)


def kernel(n: int, dtype: torch.dtype = F64, noise: float = 1e-2, length: float = 0.5, seed: int = 0) -> Tensor:
    x = torch.rand(n, 3, generator=generator(seed), dtype=F64)
    distance = torch.cdist(x, x) / length
    return ((1 + distance) * torch.exp(-distance) + noise * torch.eye(n, dtype=F64)).to(dtype)


def batch(dtype: torch.dtype) -> Tensor:
    """The last matrix of the batch is not positive definite."""
    return torch.stack([kernel(300, dtype), kernel(300, dtype, noise=1e-4, seed=1), -torch.eye(300, dtype=dtype)])


def gradients(call: Callable[[Tensor, Tensor], Tensor], n: int, dtype: torch.dtype) -> dict[str, Tensor | None]:
    A, rhs = kernel(n, dtype).requires_grad_(), torch.ones(n, 2, dtype=dtype, requires_grad=True)
    value = call(A, rhs)
    value.backward()
    return {"value": value.detach(), "gradient_A": A.grad, "gradient_rhs": rhs.grad}


for _name, _dtype in TYPES.items():
    for _method in ("auto", "cg", "block-cg"):
        for _P in ("rangeformer", "rpcholesky", None):
            add(
                f"solve {_method} {_P} {_name}",
                lambda m=_method, P=_P, t=_dtype: rf.linear_solve(
                    kernel(600, t), normal(600, 9, dtype=t), method=m, preconditioner=P, rtol=1e-5
                ),
            )
    for _P in ("rangeformer-untrained", "pivoted-cholesky", "nystrom", "cholesky"):
        add(
            f"solve vector {_P} {_name}",
            lambda P=_P, t=_dtype: rf.linear_solve(kernel(600, t), normal(600, dtype=t), preconditioner=P, rtol=1e-5),
        )
    add(
        f"solve tight {_name}",
        lambda t=_dtype: rf.linear_solve(kernel(600, t), normal(600, 9, dtype=t), rtol=1e-7 if t == F32 else 1e-12),
    )
    for _fallback in (True, False):
        add(
            f"solve too few iterations, fallback {_fallback} {_name}",
            lambda f=_fallback, t=_dtype: rf.linear_solve(
                kernel(300, t),
                normal(300, 9, dtype=t),
                preconditioner=None,
                max_iterations=2,
                **({} if f else {"fallback": None}),
            ),
        )
    add(
        f"solve 70 columns {_name}",
        lambda t=_dtype: rf.linear_solve(kernel(600, t), normal(600, 70, dtype=t), rtol=1e-4),
    )
    add(
        f"solve indefinite {_name}",
        lambda t=_dtype: rf.linear_solve(torch.diag(torch.linspace(-1, 1, 300, dtype=t)), torch.ones(300, 5, dtype=t)),
    )
    add(f"solve batch {_name}", lambda t=_dtype: rf.linear_solve(batch(t), normal(3, 300, 6, dtype=t)))
    for _P in ("rangeformer", "rpcholesky", None):
        add(f"logdet {_P} {_name}", lambda P=_P, t=_dtype: rf.logdet(kernel(600, t), preconditioner=P))
        add(
            f"inv_quad_logdet {_P} {_name}",
            lambda P=_P, t=_dtype: rf.inv_quad_logdet(kernel(600, t), normal(600, 9, dtype=t), preconditioner=P),
        )
    add(
        f"inv_quad_logdet vector, too few iterations {_name}",
        lambda t=_dtype: rf.inv_quad_logdet(
            kernel(600, t), normal(600, dtype=t), preconditioner=None, max_iterations=3
        ),
    )
    add(f"logdet exact {_name}", lambda t=_dtype: rf.logdet(kernel(200, t)))
    add(f"logdet batch {_name}", lambda t=_dtype: rf.logdet(batch(t)))
    add(f"inv_quad_logdet batch {_name}", lambda t=_dtype: rf.inv_quad_logdet(batch(t), torch.ones(300, 2, dtype=t)))
    for _n in (100, 400):
        for _what, _call in {
            "solve": lambda A, b: rf.linear_solve(A, b).value.sum(),
            "logdet": lambda A, b: rf.logdet(A).value,
            "inv_quad": lambda A, b: rf.inv_quad_logdet(A, b).inv_quad,
            "inv_quad_logdet": lambda A, b: rf.inv_quad_logdet(A, b).logdet,
        }.items():
            add(f"gradient of {_what} {_n} {_name}", lambda c=_call, n=_n, t=_dtype: gradients(c, n, t))
    add(f"sample {_name}", lambda t=_dtype: rf.sample_gaussian(kernel(400, t), 70, generator=generator(3)))
    add(
        f"learned solve {_name}",
        lambda t=_dtype: rf.linear_solve(kernel(400, t), normal(400, 9, dtype=t), method=LEARNED_KRYLOV, num_loops=5),
    )
    add(f"learned logdet {_name}", lambda t=_dtype: rf.logdet(kernel(400, t), method=LEARNED_KRYLOV, num_loops=5))
    add(f"eigvalsh {_name}", lambda t=_dtype: rf.eigvalsh(kernel(400, t), num_loops=4))
    add(f"eigsh {_name}", lambda t=_dtype: rf.eigsh(kernel(400, t), 5, num_loops=4))
    add(f"svdvals {_name}", lambda t=_dtype: rf.svdvals(kernel(400, t)[:, :250], num_loops=3))
    add(f"lstsq {_name}", lambda t=_dtype: rf.lstsq(kernel(400, t)[:, :250], normal(400, dtype=t)))
    add(f"trace {_name}", lambda t=_dtype: rf.trace(kernel(400, t)))
    add(f"inverse_matmul {_name}", lambda t=_dtype: rf.inverse_matmul(kernel(400, t), normal(400, 9, dtype=t)))
    add(f"inverse_trace {_name}", lambda t=_dtype: rf.inverse_trace(kernel(400, t), num_loops=3))


def _reused() -> dict[str, Any]:
    P = rf.build_preconditioner(kernel(600), num_rhs=16)
    nearby = kernel(600, length=0.6)
    again = rf.build_preconditioner(nearby, num_rhs=16, structure=P.structure)
    solved = evidence(rf.linear_solve(nearby, normal(600, 9), preconditioner=again))
    return {"first": P.logdet, "reused": again.logdet, "whitened": again.whiten(normal(600, 2)), **solved}


def _sparse() -> rf.Solution:
    A = scipy.sparse.diags([-1.0, 2.5, -1.0], [-1, 0, 1], shape=(500, 500)).tocsr()
    return rf.linear_solve(A, normal(500, 4))


def _products_only() -> rf.Solution:
    A = kernel(400)
    return rf.linear_solve((lambda v: A @ v, (400, 400)), normal(400, 4))


def _stated_noise() -> rf.InvQuadLogdet:
    from linear_operator import to_linear_operator
    from linear_operator.operators import AddedDiagLinearOperator, ConstantDiagLinearOperator

    noise = ConstantDiagLinearOperator(torch.tensor([0.01], dtype=F64), 600)
    return rf.inv_quad_logdet(AddedDiagLinearOperator(to_linear_operator(kernel(600, noise=0.0)), noise), normal(600))


add("structure reused", _reused)
add("sparse matrix", _sparse)
add("products only", _products_only)
add("stated noise", _stated_noise)
add(
    "options object",
    lambda: rf.linear_solve(
        kernel(600), normal(600, 5), preconditioner=rf.RangeFormerPreconditioner(num_columns=20, num_neighbors=6)
    ),
)


def smooth(m: int, n: int, dtype: torch.dtype = F64) -> Tensor:
    """Singular values that fall like 1 / j and rows of uneven size."""
    U, V = torch.linalg.qr(normal(m, n, seed=5)).Q, torch.linalg.qr(normal(n, n, seed=6)).Q
    sizes = torch.rand(m, 1, generator=generator(7), dtype=F64) + 0.1
    return (sizes * (U / torch.arange(1, n + 1)) @ V).to(dtype)


for _name, _dtype in TYPES.items():
    for _sketch in ("rangeformer", "gaussian", "sampled-rows", "sparse-sign"):
        add(
            f"randomized_svd {_sketch} {_name}",
            lambda s=_sketch, t=_dtype: sketching.randomized_svd(smooth(300, 120, t), 10, sketch=s),
        )
    for _passes in (0, 2):
        add(
            f"randomized_svd {_passes} power iterations {_name}",
            lambda q=_passes, t=_dtype: sketching.randomized_svd(smooth(300, 120, t), 10, num_power_iterations=q),
        )
    add(f"block_krylov_svd {_name}", lambda t=_dtype: sketching.block_krylov_svd(smooth(300, 120, t), 10))
    add(f"one_view_svd {_name}", lambda t=_dtype: sketching.one_view_svd(smooth(300, 120, t), 10))
    add(f"randomized_eigh {_name}", lambda t=_dtype: sketching.randomized_eigh(kernel(200, t), 8))
    add(f"nystrom {_name}", lambda t=_dtype: sketching.nystrom(kernel(200, t), 8))
    add(f"pivoted_nystrom {_name}", lambda t=_dtype: sketching.pivoted_nystrom(kernel(200, t), 8))
    add(f"estimate_trace {_name}", lambda t=_dtype: sketching.estimate_trace(kernel(200, t), 30))
    add(f"estimate_diagonal {_name}", lambda t=_dtype: sketching.estimate_diagonal(kernel(200, t), 30))
    add(f"xtrace {_name}", lambda t=_dtype: sketching.xtrace(kernel(200, t), 30))
add(
    "randomized_svd to a tolerance",
    lambda: sketching.randomized_svd(smooth(300, 120), 40, **{SKETCH_TOLERANCE: 0.2}),
)
add("range_finder to a tolerance", lambda: sketching.range_finder(smooth(300, 120), **{SKETCH_TOLERANCE: 0.1}))
add("range_finder of a rank", lambda: sketching.range_finder(smooth(300, 120), 10))
add("randomized_svd columns", lambda: sketching.randomized_svd(smooth(120, 100).mT, 10, side="columns"))


def _decomposition(result: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(result).items() if isinstance(value, (Tensor, int, float))}


add("cur", lambda: _decomposition(sketching.cur(smooth(300, 120), 8)))
add("interpolative", lambda: _decomposition(sketching.interpolative(smooth(300, 120), 8)))


class _GP(gpytorch.models.ExactGP):
    def __init__(self, x: Tensor, y: Tensor):
        super().__init__(x, y, gpytorch.likelihoods.GaussianLikelihood())
        self.mean_module = gpytorch.means.ConstantMean()
        self.covar_module = gpytorch.kernels.ScaleKernel(gpytorch.kernels.MaternKernel(nu=1.5, ard_num_dims=3))

    def forward(self, x: Tensor) -> gpytorch.distributions.MultivariateNormal:
        return gpytorch.distributions.MultivariateNormal(self.mean_module(x), self.covar_module(x))


def _gp(dtype: torch.dtype) -> tuple[_GP, Tensor]:
    x = torch.rand(920, 3, generator=generator(8), dtype=F64).to(dtype)
    y = torch.sin(6 * x[:, 0]) + x[:, 1] * x[:, 2] + 0.1 * normal(920, dtype=dtype, seed=9)
    return _GP(x[:900], y[:900]).to(dtype), x[900:]


def training(dtype: torch.dtype) -> dict[str, Any]:
    """Three steps: the second and third reuse what the first found."""
    model, _ = _gp(dtype)
    objective = gpytorch.mlls.ExactMarginalLogLikelihood(model.likelihood, model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = {}
    with settings.use_rangeformer(**{GP_TOLERANCE: 1e-4}):
        for step in range(3):
            optimizer.zero_grad()
            loss = -objective(model(*model.train_inputs), model.train_targets)
            loss.backward()
            found[f"loss {step}"] = loss.detach()
            found |= {f"{name} {step}": p.grad.clone() for name, p in model.named_parameters()}
            optimizer.step()
    return found


def prediction(dtype: torch.dtype) -> dict[str, Any]:
    """Mean, variance and covariance of the latent function."""
    model, x = _gp(dtype)
    model.eval()
    with settings.use_rangeformer(**{EVAL_TOLERANCE: 1e-5}), torch.no_grad():
        posterior = model(x)
        return {
            "mean": posterior.mean,
            "variance": posterior.variance,
            "covariance": posterior.covariance_matrix,
            "samples": posterior.rsample(torch.Size([2]), base_samples=normal(2, 20, dtype=dtype)),
        }


for _name, _dtype in TYPES.items():
    add(f"gp training {_name}", lambda t=_dtype: training(t))
    add(f"gp prediction {_name}", lambda t=_dtype: prediction(t))
