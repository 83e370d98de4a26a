import torch
from helpers import kernel

import rangeformer as rf
import sketching
from rangeformer.randomness import draw_normal, draw_order, draw_signs, draw_uniform


def untouched(call):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    result = call()
    assert torch.equal(torch.get_rng_state(), state)
    return result


def test_without_a_generator_the_same_call_gives_the_same_answer_and_leaves_the_global_one_alone():
    A = kernel(300)
    b = torch.ones(A.shape[-1], dtype=A.dtype)
    calls = [
        lambda: rf.linear_solve(A, b).value,
        lambda: rf.logdet(A, num_probes=5).value,
        lambda: rf.inv_quad_logdet(A, b, num_probes=5).logdet,
        lambda: rf.build_preconditioner(A).logdet,
        lambda: sketching.randomized_svd(A, 5).S,
    ]
    for call in calls:
        assert torch.equal(untouched(call), untouched(call))


def test_samples_are_new_each_time_and_follow_the_global_seed():
    A = kernel(300)
    torch.manual_seed(0)
    first, second = rf.sample_gaussian(A, 2), rf.sample_gaussian(A, 2)
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(rf.sample_gaussian(A, 2), first)


def test_numbers_are_those_that_torch_draws_from_the_generator():
    where = {"dtype": torch.float64, "device": torch.device("cpu")}

    def seeded():
        return torch.Generator().manual_seed(3)

    normal = torch.randn(2, 5, generator=seeded(), dtype=torch.float64)
    assert torch.equal(draw_normal((2, 5), seeded(), **where), normal)
    uniform = torch.rand(2, 5, generator=seeded(), dtype=torch.float64)
    assert torch.equal(draw_uniform((2, 5), seeded(), **where), uniform)
    assert torch.equal(draw_order(9, seeded(), device=where["device"]), torch.randperm(9, generator=seeded()))
    signs = draw_signs((3, 4), seeded(), **where)
    assert torch.equal(signs, 2.0 * torch.randint(0, 2, (3, 4), generator=seeded()) - 1)
    assert signs.dtype == torch.float64


def test_without_a_generator_the_global_one_is_used():
    torch.manual_seed(0)
    drawn = draw_normal((4,), None, dtype=torch.float32, device=torch.device("cpu"))
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.randn(4))
