"""The stack of blocks of one thread."""

import pytest
from gpytorch.distributions import MultivariateNormal

from gp_integration import state
from gp_integration.options import BlockOptions
from gp_integration.settings import use_rangeformer


def test_blocks_are_entered_and_left_in_order():
    outer = state.push(BlockOptions())
    off = state.push(None)
    assert state.innermost() is off
    assert state.current() is None
    assert state.latest_recorder() is outer.recorder, "a switched-off block records nothing"
    assert state.remove([outer.recorder, off.recorder]) is off.recorder
    assert state.current() is outer
    with state.suspended():
        assert state.innermost() is None
    assert state.current() is outer
    state.remove([outer.recorder])
    assert state.innermost() is None


def test_leaving_what_was_not_entered_is_an_error():
    with pytest.raises(RuntimeError, match="had not entered it"):
        state.remove([])


def test_blocks_may_be_left_in_another_order_than_entered():
    first, second = use_rangeformer(rtol=1e-2), use_rangeformer(rtol=1e-3)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert state.current().options.rtol == 1e-3
    second.__exit__(None, None, None)
    assert use_rangeformer.is_default()


def test_one_object_may_be_entered_twice():
    block = use_rangeformer()
    with block:
        with block:
            assert use_rangeformer.on()
        assert use_rangeformer.on()
    assert use_rangeformer.is_default()


def test_a_number_is_no_state():
    with pytest.raises(TypeError, match=r"`state` must be True or False. Got 0\.0001; .* `rtol=1e-4`"):
        use_rangeformer(1e-4)


def test_a_block_that_is_never_entered_says_so():
    with pytest.warns(UserWarning, match="never entered"):
        use_rangeformer(rtol=1e-4)


def test_its_repr_says_what_it_is():
    block = use_rangeformer(rtol=1e-4)
    assert repr(block) == "use_rangeformer(rtol=0.0001, eval_rtol=0.0001), not active"
    with block:
        assert repr(block).endswith(", active")


def test_an_interrupt_while_a_block_is_entered_leaves_nothing_patched(monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    before = MultivariateNormal.log_prob
    with monkeypatch.context() as patch:
        patch.setattr(state, "push", interrupted)
        with pytest.raises(KeyboardInterrupt), use_rangeformer():
            raise AssertionError("the block must not be entered")
    assert MultivariateNormal.log_prob is before
    assert state.current() is None
    with use_rangeformer():
        assert MultivariateNormal.log_prob is not before
    assert MultivariateNormal.log_prob is before
