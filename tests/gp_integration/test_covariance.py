"""Which covariances are handled, and as what they are evaluated."""

import gpytorch
import pytest
import torch
from gp_models import exact_gp
from linear_operator.operators import (
    AddedDiagLinearOperator,
    BatchRepeatLinearOperator,
    DenseLinearOperator,
    DiagLinearOperator,
    KroneckerProductLinearOperator,
    MaskedLinearOperator,
    RootLinearOperator,
    SumLinearOperator,
    ToeplitzLinearOperator,
)

from gp_integration.covariance import PredictiveCovariance, is_dense, kernels_of, kind_of, noisy_system, samplable

EYE = torch.eye(4, dtype=torch.float64)
DENSE = DenseLinearOperator(EYE + 0.1)
DIAGONAL = DiagLinearOperator(torch.linspace(1, 2, 4, dtype=torch.float64))
NOISY = AddedDiagLinearOperator(DENSE, DIAGONAL)
LOW_RANK = RootLinearOperator(EYE[:, :1])
TOEPLITZ = ToeplitzLinearOperator(torch.tensor([2.0, 1, 0, 0], dtype=torch.float64))
KRONECKER = KroneckerProductLinearOperator(DenseLinearOperator(EYE[:2, :2]), DenseLinearOperator(EYE[:2, :2]))


@pytest.mark.parametrize(
    ("operator", "dense", "drawn_here"),
    [
        (DENSE, True, True),
        (DENSE * torch.tensor(2.0, dtype=torch.float64), True, True),
        (NOISY, True, True),
        (SumLinearOperator(DENSE, LOW_RANK), True, False),
        (PredictiveCovariance(DENSE, LOW_RANK), True, True),
        (SumLinearOperator(NOISY, DENSE), False, True),
        (LOW_RANK, False, False),
        (TOEPLITZ, False, False),
        (KRONECKER, False, False),
    ],
)
def test_structure_is_left_alone(operator, dense, drawn_here):
    assert is_dense(operator) is dense
    assert samplable(operator) is drawn_here


def test_a_noisy_system_is_the_same_matrix():
    mask = torch.tensor([True, False, True, True])
    masked = MaskedLinearOperator(NOISY, mask, mask)
    for operator in (NOISY, masked, BatchRepeatLinearOperator(NOISY, torch.Size([3]))):
        system = noisy_system(operator)
        assert type(system) is AddedDiagLinearOperator
        assert torch.equal(system.to_dense(), operator.to_dense())


def test_what_is_no_noisy_system_has_a_name():
    half = AddedDiagLinearOperator(DenseLinearOperator(EYE.half()), DiagLinearOperator(torch.ones(4).half()))
    toeplitz = AddedDiagLinearOperator(TOEPLITZ, DIAGONAL)
    names = {half: "matrices of torch.float16", DENSE: "DenseLinearOperator", toeplitz: "ToeplitzLinearOperator"}
    for operator, name in names.items():
        assert noisy_system(operator) is None
        assert name in kind_of(operator)


def test_the_kernel_behind_a_covariance():
    model = exact_gp(5)
    with gpytorch.settings.lazily_evaluate_kernels(True):
        model.train()
        covariance = model.likelihood(model(*model.train_inputs)).lazy_covariance_matrix
    assert kernels_of(covariance) == [model.covar_module]
    assert kernels_of(NOISY) == []
