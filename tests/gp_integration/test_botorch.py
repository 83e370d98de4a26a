"""BoTorch: it switches GPyTorch's fast computations off when imported, and asks for posteriors its own way."""

import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys, warnings
sys.path[:0] = {path!r}
warnings.simplefilter("error")
warnings.filterwarnings("ignore", "`torch.jit.script`", DeprecationWarning)
import torch
from gp_models import data, exact_gp, loss_of, truth
from gp_integration import settings
import gpytorch, linear_operator
if {botorch_first}:
    import botorch

torch.manual_seed(0)
with settings.use_rangeformer() as recorder:
    import botorch
    from botorch.acquisition import qLogExpectedImprovement
    from botorch.models import SingleTaskGP
    from botorch.models.transforms import Standardize
    from botorch.sampling import SobolQMCNormalSampler

    assert linear_operator.settings.max_cholesky_size.value() == 4096
    model = exact_gp(810)
    loss = loss_of(model)
assert recorder.report().num_calls("log_prob") == 1
exact = truth(model)[0]
assert abs(loss - exact) <= 1e-3 * abs(exact)

x, y = data(816)
low, high = x.amin(0), x.amax(0)
x = (x - low) / (high - low)
x, t, y = x[:810], x[810:].reshape(3, 2, 3), y[:810]
gp = SingleTaskGP(x, y[:, None], outcome_transform=Standardize(1))
gp.covar_module.lengthscale = 0.4
gp.likelihood.noise = 0.05
gp.eval()
with torch.no_grad():
    expected = gp.posterior(t)
    mean, variance = expected.mean, expected.variance
gp.train(); gp.eval()
with settings.use_rangeformer() as recorder:
    posterior = gp.posterior(t)
    assert torch.allclose(posterior.mean, mean, atol=1e-3), (posterior.mean, mean)
    assert torch.allclose(posterior.variance, variance, rtol=1e-4), (posterior.variance, variance)
    samples = posterior.rsample(torch.Size([5]))
    assert samples.shape == (5, 3, 2, 1)
assert recorder.report().num_calls("mean") == 1
assert recorder.report().num_calls("covariance") == 1
assert recorder.report().num_calls("samples") == 1

values, gradients = [], []
for inside in (False, True):
    gp.train(); gp.eval()
    candidates = t.clone().requires_grad_(True)
    with settings.use_rangeformer(inside) as recorder:
        sampler = SobolQMCNormalSampler(torch.Size([32]), seed=1)
        acquisition = qLogExpectedImprovement(gp, best_f=float(y.max()) - 0.5, sampler=sampler)
        value = acquisition(candidates)
        value.sum().backward()
    values.append(value.detach()); gradients.append(candidates.grad)
assert recorder.report().num_calls("covariance") == 1
assert torch.allclose(values[0], values[1], rtol=1e-2), values
assert torch.allclose(gradients[0], gradients[1], rtol=5e-2, atol=1e-2 * gradients[0].abs().max()), gradients
print(recorder)

# fantasies: conditioning on observations, and the knowledge gradient with its gradient
from botorch.acquisition import qKnowledgeGradient
from botorch.acquisition.analytic import PosteriorMean
new, targets = t.reshape(-1, 3)[:3], y[:3, None]

def conditioned():
    gp.train(); gp.eval()
    gp.posterior(t)
    found = gp.condition_on_observations(new, targets).posterior(t)
    return found.mean.detach(), found.variance.detach()

def knowledge_gradient():
    gp.train(); gp.eval()
    acquisition = qKnowledgeGradient(gp, num_fantasies=4, sampler=SobolQMCNormalSampler(torch.Size([4]), seed=0))
    candidates = torch.linspace(0.1, 0.9, 15, dtype=x.dtype).reshape(1, 5, 3).clone().requires_grad_()
    value = acquisition(candidates)
    return value.detach(), torch.autograd.grad(value.sum(), candidates)[0]

with linear_operator.settings.max_cholesky_size(10**6):
    truth_conditioned, truth_gradient = conditioned(), knowledge_gradient()
with settings.use_rangeformer(eval_rtol=1e-6) as recorder:
    ours_conditioned, ours_gradient = conditioned(), knowledge_gradient()
for found, known in zip(ours_conditioned + ours_gradient, truth_conditioned + truth_gradient, strict=True):
    assert torch.allclose(found, known, rtol=1e-3, atol=1e-4 * float(known.abs().max())), (found, known)
assert recorder.report().num_calls("fantasies") >= 2
assert not recorder.report().fallbacks
"""


@pytest.mark.parametrize("botorch_first", [True, False])
def test_botorch_in_its_own_process(botorch_first):
    # importing botorch changes GPyTorch's defaults for good, so it may not happen in this process
    path = [p for p in sys.path if p] + [str(Path(__file__).parent)]
    code = CODE.format(path=path, botorch_first=botorch_first)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
