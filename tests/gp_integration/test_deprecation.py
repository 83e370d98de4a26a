"""Former names work for one version and name the new one."""

import pytest
import torch
from gp_models import exact_gp, loss_of

from gp_integration import RangeFormerLinearOperator, settings
from rangeformer.deprecation import renamed


def test_the_keywords_of_a_block():
    with (
        pytest.warns(DeprecationWarning, match="`tolerance` is now called `rtol`"),
        pytest.warns(DeprecationWarning, match="`eval_tolerance` is now called `eval_rtol`") as caught,
    ):
        block = settings.use_rangeformer(tolerance=1e-5, eval_tolerance=1e-6)
    assert {warning.filename for warning in caught} == {__file__}
    with block as recorder:
        loss_of(exact_gp(810))
    (call,) = recorder.report().calls
    assert call.rtol == 1e-5


def test_the_keyword_of_an_operator():
    with pytest.warns(DeprecationWarning, match="`tolerance` is now called `rtol`"):
        operator = RangeFormerLinearOperator(torch.eye(3, dtype=torch.float64), tolerance=1e-9)
    with settings.use_rangeformer() as recorder:
        operator.evaluate_kernel().solve(torch.ones(3, dtype=torch.float64))
    assert recorder.report().calls[0].rtol == 1e-9


def test_the_attribute_of_a_recorded_call():
    with settings.use_rangeformer() as recorder:
        RangeFormerLinearOperator(torch.eye(3)).solve(torch.ones(3))
    (call,) = recorder.report().calls
    with pytest.warns(DeprecationWarning, match="`tolerance` is now called `rtol`"):
        assert call.tolerance == call.rtol


def test_a_value_passes_unchanged():
    with pytest.warns(DeprecationWarning, match="next version"):
        assert renamed("old", "new", 3) == 3
