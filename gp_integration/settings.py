"""`use_rangeformer`: the switch, in the manner of `gpytorch.settings`."""

import warnings
from pathlib import Path

from gp_integration import patches
from gp_integration import state as block_state
from gp_integration.options import BlockOptions
from gp_integration.report import Recorder, Report
from rangeformer.deprecation import renamed


class use_rangeformer:  # noqa: N801 - named like the settings of GPyTorch
    """Train and predict exact GPs with RangeFormer's certified solves and log-determinants.

    Inside the block, the marginal likelihood of an unmodified exact GP, its gradient, its predictive
    mean and covariance, and its samples are computed by `rangeformer`; every solve is checked. One that
    misses its tolerance is repeated by Cholesky, with a warning and an entry in the report, unless its
    backward error is already that of rounding: Cholesky in the same precision has nothing better then, and
    the solve is kept, with its residual under `missed` in the report. What
    cannot gain (SGPR, SVGP, Kronecker multitask, KISS-GP) is left alone, which a warning says once.

    Blocks nest; the innermost one counts, they may be left in any order, and `use_rangeformer(False)`
    switches off. A block is seen only by the thread (or asyncio task) that entered it. `.backward()`
    may be called after the block.
    Predictions can be differentiated any number of times; the marginal likelihood once, since its
    log-determinant is an estimate: second derivatives of it need `use_rangeformer(False)`.
    Functions of GPyTorch are replaced while at least one block is active in the process; afterwards
    they are the very objects they were before.

    Args:
        state: False switches off inside an outer block. (Default: True)
        rtol: Relative residual of the training solves, worst column. (Default: 1e-3)
        eval_rtol: The same for predictive means and covariances; a covariance is off by its square,
            and never too small. (Default: 1e-4)
        num_columns: Columns of the kernel matrix the model reads; None lets it choose. (Default: None)
        num_neighbors: Neighbours per row; None lets it choose. (Default: None)
        num_probes: Probe vectors of the log-determinant; None lets it choose. (Default: None)
        checkpoint: Path of trained weights, "untrained", or None for the shipped ones. (Default: None)
        seed: Seed of probes and preconditioner in every call, so that the loss is a deterministic
            function of the hyperparameters; None draws anew from torch's global generator. Samples are
            always drawn from the global generator. (Default: 0)
        max_iterations: Iterations after which a solve has failed. (Default: 1000)
        min_size: Matrices of at most this order, and at most `max_cholesky_size`, stay with GPyTorch's
            Cholesky, which is exact and faster there. (Default: 800)
        fallback: "cholesky", or "raise" to get a RuntimeError instead. (Default: "cholesky")
        reuse_structure: Keep the pivots and neighbours found for a kernel for its next training step, as
            long as they serve; finding them is most of the set-up. (Default: True)
        gradient_rtol: Standard error of the marginal likelihood's gradient that is wanted, relative to the norm of
            the gradient. Each training step then measures it (one backward pass for each probe), states it in the
            report, and adds probes until it is met or 512 are in use. (Default: None, nothing is measured)
        tolerance: The former name of `rtol`; deprecated.
        eval_tolerance: The former name of `eval_rtol`; deprecated.

    Raises:
        TypeError: If `state` is not a bool: a number there would be taken for a tolerance that is then ignored.
        ValueError: If an option is out of range, or the checkpoint is damaged.
        FileNotFoundError: If there is no such checkpoint.
        RuntimeError: If the installed GPyTorch differs from the tested ones in a method that is replaced.

    Example:
        >>> with use_rangeformer(rtol=1e-4, seed=1) as recorder:
        ...     recorder.report().num_calls()
        0
        >>> use_rangeformer.on()
        False
    """

    def __init__(
        self,
        state: bool = True,
        *,
        rtol: float = BlockOptions.rtol,
        eval_rtol: float = BlockOptions.eval_rtol,
        num_columns: int | None = None,
        num_neighbors: int | None = None,
        num_probes: int | None = None,
        checkpoint: str | Path | None = None,
        seed: int | None = 0,
        max_iterations: int = BlockOptions.max_iterations,
        min_size: int = BlockOptions.min_size,
        fallback: str = "cholesky",
        reuse_structure: bool = True,
        gradient_rtol: float | None = None,
        tolerance: float | None = None,
        eval_tolerance: float | None = None,
    ):
        self._entered: list[Recorder] = []
        self._was_entered = True  # until the options have passed their checks: an error says enough
        if not isinstance(state, bool):
            raise TypeError(
                f"`state` must be True or False. Got {state!r}; a tolerance is given by name, as `rtol=1e-4`."
            )
        if tolerance is not None:
            rtol = renamed("tolerance", "rtol", tolerance)
        if eval_tolerance is not None:
            eval_rtol = renamed("eval_tolerance", "eval_rtol", eval_tolerance)
        options = BlockOptions(
            rtol,
            eval_rtol,
            num_columns,
            num_neighbors,
            num_probes,
            checkpoint,
            seed,
            max_iterations,
            min_size,
            fallback,
            reuse_structure,
            gradient_rtol,
        )
        self._options = options if state else None
        self._was_entered = False

    @classmethod
    def on(cls) -> bool:
        """Whether a switched-on block is the innermost one of this thread."""
        return block_state.current() is not None

    @classmethod
    def off(cls) -> bool:
        """The opposite of `on`."""
        return not cls.on()

    @classmethod
    def is_default(cls) -> bool:
        """Whether this thread is in no block at all."""
        return block_state.innermost() is None

    def __repr__(self) -> str:
        options = (
            "False" if self._options is None else f"rtol={self._options.rtol:g}, eval_rtol={self._options.eval_rtol:g}"
        )
        return f"use_rangeformer({options}), {'active' if self._entered else 'not active'}"

    def __del__(self):
        if not getattr(self, "_was_entered", True):
            warnings.warn(
                "use_rangeformer() was created and never entered, so that it had no effect. Write "
                "`with use_rangeformer(): ...` around training and prediction.",
                UserWarning,
                stacklevel=2,
            )

    def __enter__(self) -> Recorder:
        self._was_entered = True
        if self._options is not None:
            self._options.preconditioner()  # a missing or damaged checkpoint shows here, not in training
        patches.acquire()
        try:
            recorder = block_state.push(self._options).recorder
            self._entered.append(recorder)
        except BaseException:  # an interrupt here must not leave GPyTorch patched
            patches.release()
            raise
        return recorder

    def __exit__(self, *exception: object) -> bool:
        left = block_state.remove(self._entered)
        try:
            self._entered = [recorder for recorder in self._entered if recorder is not left]
        finally:
            patches.release()
        return False


def last_report() -> Report | None:
    """What happened in the block this thread entered last, running or finished.

    Returns:
        The report, or None if this thread has entered no block. `print` it for a table.
    """
    recorder = block_state.latest_recorder()
    return None if recorder is None else recorder.report()
