"""Former names warn where they are used, and say what they are called now."""

import pytest

from rangeformer.deprecation import renamed_attributes, warn_renamed


def test_the_warning_names_both():
    def public():
        warn_renamed("`old`", "`new`")

    with pytest.warns(DeprecationWarning, match="`old` is now called `new`"):
        public()


def test_a_package_finds_former_names_and_no_others():
    lookup = renamed_attributes("package", {"Old": dict})
    with pytest.warns(DeprecationWarning, match="`package.Old` is now called `package.dict`"):
        assert lookup("Old") is dict
    with pytest.raises(AttributeError, match="module 'package' has no attribute 'Other'"):
        lookup("Other")
