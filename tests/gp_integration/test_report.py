"""What is recorded, added up, and printed."""

from gp_integration.report import Call, Recorder


def recorded():
    recorder = Recorder()
    recorder.call(Call("mean", 900, "cg", 1, 7, 8, rtol=1e-4, residual=5e-5, preconditioner=(32, 4)))
    recorder.call(Call("mean", 900, "cg", 1, 5, 6, rtol=1e-4, residual=2e-5, preconditioner=(16, 4)))
    recorder.call(Call("samples", 40, "cholesky (exact)", 3))
    recorder.fallback("mean", "not finite.")
    recorder.left_alone("matrices small enough for Cholesky")
    recorder.left_alone("matrices small enough for Cholesky")
    return recorder


def test_figures_add_up_by_purpose_and_in_all():
    report = recorded().report()
    assert (report.num_calls(), report.num_calls("mean")) == (3, 2)
    assert (report.num_iterations("mean"), report.num_matvecs("mean")) == (12, 14)
    assert (report.worst_residual(), report.worst_residual("samples")) == (5e-5, None)
    assert report.preconditioners == ((16, 4), (32, 4))
    assert report.fallbacks == (("mean", "not finite."),)
    assert report.left_alone == {"matrices small enough for Cholesky": 2}


def test_a_report_is_a_copy():
    recorder = recorded()
    before = recorder.report()
    recorder.call(Call("mean", 900, "cg"))
    assert before.num_calls() == 3


def test_the_table():
    lines = str(recorded()).splitlines()
    assert lines[1].split() == ["mean", "cg", "2", "12", "14", "1.0e-04", "5.0e-05"]
    assert lines[2].split()[-2:] == ["-", "-"]
    assert lines[3:] == [
        "fallback to Cholesky (mean): not finite.",
        "left alone (2 times): matrices small enough for Cholesky",
    ]
