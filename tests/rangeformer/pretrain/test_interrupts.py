"""The first signal asks the run to stop, the second ends it; afterwards signals do what they did."""

import signal
import threading

import pytest

from rangeformer.pretrain.interrupts import stop_requests


def test_the_first_signal_asks_and_the_second_ends():
    before = signal.getsignal(signal.SIGTERM)
    with stop_requests() as request:
        assert not request.made
        signal.raise_signal(signal.SIGTERM)
        assert request.made
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


def test_other_threads_catch_nothing():
    found = []

    def run():
        with stop_requests() as request:
            found.append(request.made)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [False]
