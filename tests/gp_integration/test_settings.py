"""The switch: conventions, nesting, threads, and that GPyTorch is left as it was."""

import asyncio
import subprocess
import sys
import threading

import pytest
import torch
from gp_models import exact_gp, loss_of

import rangeformer as rf
from gp_integration import patches, settings
from gp_integration.settings import use_rangeformer


def attributes():
    """The raw class attributes that a block replaces, None where the class only inherits one."""
    return [patch.owner.__dict__.get(patch.name) for patch in patches.PATCHES]


def test_state_follows_the_conventions_of_gpytorch():
    assert use_rangeformer.is_default()
    assert use_rangeformer.off()
    with use_rangeformer():
        assert use_rangeformer.on()
        assert not use_rangeformer.is_default()
        with use_rangeformer(False):
            assert use_rangeformer.off()
            assert not use_rangeformer.is_default()
        assert use_rangeformer.on()
    assert use_rangeformer.off()


def test_nothing_remains_after_the_last_block():
    before = attributes()
    with use_rangeformer():
        inside = attributes()
        with use_rangeformer():
            pass
        assert all(a is b for a, b in zip(attributes(), inside, strict=True))
        assert all(a is not b for a, b in zip(before, inside, strict=True))
    assert all(a is b for a, b in zip(attributes(), before, strict=True))


def test_an_exception_leaves_the_block():
    before = attributes()
    with pytest.raises(ZeroDivisionError), use_rangeformer():
        _ = 1 / 0
    assert use_rangeformer.is_default()
    assert all(a is b for a, b in zip(attributes(), before, strict=True))


def test_one_instance_may_be_entered_again_and_created_early():
    early = use_rangeformer(rtol=1e-5)
    with use_rangeformer(False), early:
        assert use_rangeformer.on()
        with early:
            assert use_rangeformer.on()
        assert use_rangeformer.on()
    assert use_rangeformer.is_default()


def test_switching_off_inside_gives_gpytorch_its_own_path():
    model = exact_gp(810)
    torch.manual_seed(1)
    outside = loss_of(model)
    with use_rangeformer() as recorder, use_rangeformer(False):
        torch.manual_seed(1)
        inside = loss_of(model)
    assert torch.equal(inside, outside)
    assert recorder.report().num_calls() == 0


def test_the_innermost_options_count():
    model = exact_gp(810)
    with use_rangeformer(rtol=1e-2) as outer, use_rangeformer(rtol=1e-6, num_columns=32) as inner:
        loss_of(model)
    assert outer.report().num_calls() == 0
    (call,) = inner.report().calls
    assert call.rtol == 1e-6
    assert call.residual <= 1e-6
    assert call.preconditioner[0] == 32


def test_report_of_the_latest_block():
    with use_rangeformer() as recorder:
        loss_of(exact_gp(810))
        assert settings.last_report() == recorder.report()
    report = settings.last_report()
    assert report.num_calls("log_prob") == report.num_calls() == 1
    assert report.num_iterations() > 0
    assert report.num_matvecs() > report.num_iterations()
    assert report.worst_residual() <= 1e-3
    assert len(report.preconditioners) == 1
    assert "log_prob" in str(report)
    with pytest.raises(AttributeError):
        report.calls = ()


def test_another_thread_sees_nothing():
    seen = {}

    def other():
        seen["on"] = use_rangeformer.on()
        seen["report"] = settings.last_report()
        torch.manual_seed(3)
        seen["loss"] = loss_of(exact_gp(810))

    torch.manual_seed(3)
    expected = loss_of(exact_gp(810))
    with use_rangeformer() as recorder:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert seen["on"] is False
    assert seen["report"] is None
    assert torch.equal(seen["loss"], expected)
    assert recorder.report().num_calls() == 0


def test_threads_enter_and_leave_concurrently():
    before = attributes()
    errors, barrier = [], threading.Barrier(8)

    def work(index):
        try:
            barrier.wait()
            for repeat in range(50):
                state = (index + repeat) % 2 == 0
                with use_rangeformer(state):
                    assert use_rangeformer.on() is state
                assert use_rangeformer.is_default()
        except BaseException as error:  # reported by the main thread
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert all(a is b for a, b in zip(attributes(), before, strict=True))


def test_tasks_do_not_see_each_other():
    async def inside(entered, leave):
        with use_rangeformer():
            entered.set()
            await leave.wait()
            assert use_rangeformer.on()

    async def main():
        entered, leave = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(inside(entered, leave))
        await entered.wait()
        assert use_rangeformer.off()
        leave.set()
        await task

    asyncio.run(main())


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("rtol", -1.0),
        ("rtol", 0),
        ("eval_rtol", float("nan")),
        ("num_columns", -1),
        ("num_neighbors", 1.5),
        ("num_probes", 0),
        ("seed", -1),
        ("max_iterations", 0),
        ("min_size", True),
        ("fallback", "hope"),
    ],
)
def test_bad_options_are_named(option, value):
    with pytest.raises(ValueError, match=f"`{option}` must be"):
        use_rangeformer(**{option: value})


def test_a_bad_checkpoint_is_an_error_at_the_with_statement(tmp_path):
    with pytest.raises(FileNotFoundError), use_rangeformer(checkpoint=tmp_path / "none.safetensors"):
        pass
    path = tmp_path / "broken.safetensors"
    rf.save(rf.RangeFormer.untrained(), path)
    with use_rangeformer(checkpoint=path):
        pass
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="broken.safetensors"), use_rangeformer(checkpoint=path):
        pass
    assert use_rangeformer.is_default()


def test_the_untrained_model_works_too():
    with use_rangeformer(checkpoint="untrained"):
        untrained = loss_of(exact_gp(810))
    with use_rangeformer():
        trained = loss_of(exact_gp(810))
    assert torch.allclose(trained, untrained, rtol=1e-3)


def test_an_unknown_version_of_gpytorch_fails_loudly(monkeypatch):
    before = attributes()
    owner = patches.MultivariateNormal
    monkeypatch.setattr(owner, "rsample", lambda self, shape: None)
    with pytest.raises(RuntimeError, match=r"MultivariateNormal.rsample.*Got \('self', 'shape'\)"), use_rangeformer():
        pass
    monkeypatch.undo()
    assert use_rangeformer.is_default()
    assert all(a is b for a, b in zip(attributes(), before, strict=True))


def test_a_patch_of_somebody_else_is_not_clobbered(monkeypatch):
    owner = patches.MultivariateNormal
    original = owner.rsample

    def theirs(self, *args, **kwargs):
        return original(self, *args, **kwargs)

    with use_rangeformer():
        ours = owner.__dict__["rsample"]
        owner.rsample = theirs
    assert owner.__dict__["rsample"] is theirs
    owner.rsample = original
    assert ours is not original


CLEAN = """
import sys, torch, gpytorch
sys.path[:0] = {path!r}
from gp_models import exact_gp, loss_of, value_and_gradient, predict, data
from gpytorch.distributions import MultivariateNormal
import linear_operator

def run():
    torch.manual_seed(5)
    model = exact_gp(820)
    loss, gradient = value_and_gradient(model)
    with torch.no_grad():
        out = predict(model, data(40, seed=9)[0])
        return [loss, gradient, out.mean, out.variance, out.sample(torch.Size([2]))]

used = exact_gp(820)
if {use}:
    from gp_integration.settings import use_rangeformer
    with use_rangeformer():
        value_and_gradient(used)
        with torch.no_grad():
            inside = predict(used, data(40, seed=9)[0])
            inside.variance, inside.sample()
torch.manual_seed(6)
used.zero_grad()
used.eval()
with torch.no_grad():
    after = used(data(40, seed=9)[0])
torch.save(run() + [after.mean, after.variance], {out!r})
assert ("gp_integration" in sys.modules) is {use}
"""


def test_results_afterwards_are_those_of_a_process_that_never_imported_us(tmp_path):
    results = []
    paths = [p for p in sys.path if p] + [str(__import__("pathlib").Path(__file__).parent)]
    for use in (False, True):
        out = str(tmp_path / f"{use}.pt")
        code = CLEAN.format(path=paths, use=use, out=out)
        subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120)
        results.append(torch.load(out))
    for theirs, ours in zip(*results, strict=True):
        assert torch.equal(theirs, ours)


def test_importing_us_replaces_nothing():
    code = (
        "import gpytorch, linear_operator\n"
        "from linear_operator.operators import AddedDiagLinearOperator as A\n"
        "from gpytorch.distributions import MultivariateNormal as M\n"
        "before = dict(vars(A)), dict(vars(M))\n"
        "import gp_integration\n"
        "assert before == (dict(vars(A)), dict(vars(M)))\n"
    )
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=120, env=None)
