import pytest
import toy


@pytest.fixture(autouse=True)
def toy_is_known(monkeypatch):
    """The toy task and its model are registered for the length of a test."""
    toy.register(monkeypatch.setitem)
