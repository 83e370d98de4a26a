"""The stack of blocks of one thread."""

import pytest

from gp_integration import state
from gp_integration.options import BlockOptions


def test_blocks_are_entered_and_left_in_order():
    outer = state.push(BlockOptions())
    off = state.push(None)
    assert state.innermost() is off
    assert state.current() is None
    assert state.latest_recorder() is outer.recorder, "a switched-off block records nothing"
    state.pop()
    assert state.current() is outer
    with state.suspended():
        assert state.innermost() is None
    assert state.current() is outer
    state.pop()
    assert state.innermost() is None


def test_leaving_what_was_not_entered_is_an_error():
    with pytest.raises(RuntimeError, match="had not entered it"):
        state.pop()
