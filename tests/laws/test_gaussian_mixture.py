"""Gaussian mixtures against torch's own, autograd, quadrature and their samples."""

import math

import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal

from sdeflow.errors import ArgumentError
from sdeflow.laws import GaussianMixture, posterior

KINDS = ("isotropic", "diagonal", "full")


def mixture(kind: str, event: tuple[int, ...] = (3,), count: int = 4, seed: int = 0) -> GaussianMixture:
    generator = torch.Generator().manual_seed(seed)
    size = math.prod(event)
    draw = {"dtype": torch.float64, "generator": generator}
    weights, means = torch.rand(count, **draw) + 0.2, 2 * torch.randn(count, *event, **draw)
    covariances = torch.rand(count, **draw) + 0.2
    if kind == "diagonal":
        covariances = torch.rand(count, size, **draw) + 0.2
    if kind == "full":
        factor = torch.randn(count, size, size, **draw)
        covariances = factor @ factor.mT + 0.3 * torch.eye(size, dtype=torch.float64)
    return GaussianMixture(weights, means, covariances)


def torch_mixture(law: GaussianMixture) -> MixtureSameFamily:
    """The same law by torch's own class, on flat events."""
    means, covariances = law.means.reshape(len(law.weights), -1), law.covariances
    if covariances.ndim == 1:
        covariances = covariances[:, None].expand(-1, means.shape[1])
    if covariances.ndim == 2:
        covariances = torch.diag_embed(covariances)
    return MixtureSameFamily(Categorical(law.weights), MultivariateNormal(means, covariances))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("event", [(3,), (2, 2), (1,), ()])
def test_density_and_moments_are_those_of_torch(kind, event):
    law = mixture(kind, event)
    reference = torch_mixture(law)
    x = 3 * torch.randn(50, 7, *event, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    flat = x.reshape(50, 7, -1)
    torch.testing.assert_close(law.log_prob(x), reference.log_prob(flat), rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(law.mean.reshape(-1), reference.mean, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(law.variance.reshape(-1), reference.variance, rtol=1e-11, atol=1e-11)
    assert law.mean.shape == law.variance.shape == torch.Size(event)


@pytest.mark.parametrize("kind", KINDS)
def test_score_is_the_gradient_of_the_log_density(kind):
    law = mixture(kind, (2, 2))
    x = torch.randn(5, 3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True)
    (slope,) = torch.autograd.grad(law.log_prob(x).sum(), x)
    torch.testing.assert_close(law.score(x), slope, rtol=1e-11, atol=1e-11)


def test_the_density_integrates_to_one():
    law = GaussianMixture([1.0, 2.0, 5.0], [[-3.0], [0.0], [1.0]], [0.5, 0.1, 2.0])
    x = torch.linspace(-20, 20, 40_001, dtype=torch.float64)[:, None]
    assert torch.trapezoid(law.log_prob(x).exp(), x[:, 0]).item() == pytest.approx(1, abs=1e-12)


def test_the_three_forms_of_one_covariance_agree():
    torch.manual_seed(3)
    weights, means, variances = torch.rand(5), torch.randn(5, 3), torch.rand(5) + 0.1
    x = 2 * torch.randn(20, 3, dtype=torch.float64)
    forms = (
        variances,
        variances[:, None].expand(5, 3),
        variances[:, None, None] * torch.eye(3),
    )
    laws = [GaussianMixture(weights, means, c) for c in forms]
    for law in laws[1:]:
        torch.testing.assert_close(law.log_prob(x), laws[0].log_prob(x), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(law.score(x), laws[0].score(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_in_float32_loses_nothing(kind):
    law = mixture(kind)
    x = 3 * torch.randn(40, 3, generator=torch.Generator().manual_seed(4))
    assert law.log_prob(x).dtype is law.score(x).dtype is torch.float32
    assert torch.equal(law.log_prob(x), law.log_prob(x.double()).float())
    assert torch.equal(law.score(x), law.score(x.double()).float())


@pytest.mark.parametrize("distance", [1.0, 1e2, 1e5])
def test_many_components_in_64_dimensions_far_into_the_tails(distance):
    generator = torch.Generator().manual_seed(5)
    means = 10 + torch.randn(1500, 64, generator=generator, dtype=torch.float64)
    weights = torch.rand(1500, generator=generator, dtype=torch.float64) + 0.01
    variances = 0.01 + 0.02 * torch.rand(1500, generator=generator, dtype=torch.float64)
    law = GaussianMixture(weights, means, variances)
    x = 10 + distance * torch.randn(4, 64, generator=generator, dtype=torch.float64)
    squares = (x[:, None] - means).square().sum(-1)  # no expansion of the square
    logits = law.weights.log() - 0.5 * squares / variances - 32 * (2 * math.pi * variances).log()
    torch.testing.assert_close(law.log_prob(x), logits.logsumexp(1), rtol=1e-12, atol=1e-8)
    pulls = (means - x[:, None]) / variances[:, None]
    expected = (logits.softmax(1)[:, :, None] * pulls).sum(1)
    torch.testing.assert_close(law.score(x), expected, rtol=1e-9, atol=1e-8)
    assert law.score(x.float()).isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_change_nothing(kind, monkeypatch):
    law = mixture(kind)
    x = torch.randn(11, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    whole = law.log_prob(x), law.score(x)
    monkeypatch.setattr(posterior, "CHUNK_ELEMENTS", 30)  # 7 rows, or 2
    torch.testing.assert_close((law.log_prob(x), law.score(x)), whole, rtol=1e-13, atol=1e-13)


def test_an_empty_batch_gives_empty_answers():
    law = mixture("full")
    assert law.log_prob(torch.zeros(0, 3)).shape == (0,)
    assert law.score(torch.zeros(0, 3)).shape == (0, 3)
    assert law.sample((0,)).shape == law.draw(0, seed=1).shape == (0, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_samples_have_the_moments_of_the_law(kind):
    """Six standard errors on 3 + 9 numbers a kind: a false alarm below 1e-7 for the three kinds together."""
    law = mixture(kind)
    n = 40_000
    x = law.draw(n, seed=7)
    reference = torch_mixture(law)

    def agrees(values, expected):
        error = values.std(0) / math.sqrt(n)
        assert ((values.mean(0) - expected).abs() < 6 * error).all()

    agrees(x, law.mean)
    centred = x - law.mean
    products = centred[:, :, None] * centred[:, None, :]
    covariances = reference.component_distribution.covariance_matrix
    apart = law.means - law.mean
    exact = torch.einsum("k,kij->ij", law.weights, covariances + apart[:, :, None] * apart[:, None, :])
    agrees(products, exact)


def test_components_are_drawn_with_their_weights():
    """Six standard errors on 3 counts: a false alarm below 1e-8."""
    law = GaussianMixture([1.0, 5.0, 2.0], [[-100.0], [0.0], [100.0]], [1.0, 1.0, 1.0])
    n = 40_000
    which = (law.draw(n, seed=10) / 100).round().flatten()
    for value, weight in ((-1, 1 / 8), (0, 5 / 8), (1, 2 / 8)):
        share = (which == value).double().mean().item()
        assert abs(share - weight) < 6 * math.sqrt(weight * (1 - weight) / n)


def test_a_seed_leaves_the_global_generator_alone():
    law = mixture("full")
    torch.manual_seed(8)
    before = torch.get_rng_state()
    first, again, other = law.draw(5, seed=1), law.draw(5, seed=1), law.draw(5, seed=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_without_a_seed_the_global_generator_decides():
    law = mixture("diagonal", (2, 2))
    torch.manual_seed(9)
    first = law.sample((4, 3))
    second = law.sample((4, 3))
    torch.manual_seed(9)
    assert torch.equal(law.sample((4, 3)), first)
    assert not torch.equal(first, second)
    assert first.shape == (4, 3, 2, 2)
    assert law.sample().shape == (2, 2)


def test_it_is_a_torch_distribution():
    law = mixture("full", (2, 2))
    assert isinstance(law, torch.distributions.Distribution)
    assert law.event_shape == (2, 2) and law.batch_shape == () and not law.has_rsample
    assert law.support.check(law.sample((3,))).tolist() == [True] * 3
    assert "4 full components" in repr(law)
    torch.testing.assert_close(law.stddev, law.variance.sqrt())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_samples_have_the_dtype_of_the_means(dtype):
    law = GaussianMixture([1, 2], torch.zeros(2, 3, dtype=dtype), torch.ones(2, dtype=torch.float64))
    assert law.sample((2,)).dtype is law.draw(2, seed=0).dtype is law.mean.dtype is law.variance.dtype is dtype


def test_it_can_be_evaluated_in_inference_mode_and_trained_through_afterwards():
    law = mixture("isotropic")
    with torch.inference_mode():
        law.score(torch.zeros(2, 3))
    x = torch.zeros(2, 3, requires_grad=True)
    law.log_prob(x).sum().backward()
    assert x.grad.isfinite().all()


def test_parameters_get_gradients():
    means = torch.tensor([[-1.0], [1.0]], dtype=torch.float64, requires_grad=True)
    variances = torch.tensor([0.5, 2.0], dtype=torch.float64, requires_grad=True)
    x = torch.tensor([[0.3], [1.7]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda m, v: GaussianMixture([0.3, 0.7], m, v).log_prob(x), (means, variances))


ONES, MEANS = torch.ones(2), torch.zeros(2, 3)
MATRICES = torch.eye(3).repeat(2, 1, 1)
LOPSIDED = MATRICES + torch.tensor([[0.0, 0.5, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])


@pytest.mark.parametrize(
    ("weights", "means", "covariances", "sentence"),
    [
        (torch.ones(3), MEANS, ONES, r"the weights have shape \(3,\) for 2 means; give one for each, \(2,\)"),
        (torch.tensor([1.0, 0.0]), MEANS, ONES, "the smallest weight is 0; give positive ones"),
        (torch.tensor([1.0, -2.0]), MEANS, ONES, "the smallest weight is -2"),
        (torch.tensor([1.0, math.nan]), MEANS, ONES, "the weights are not all finite"),
        (ONES, torch.tensor(0.0), ONES, r"the means have shape \(\); give \(K, \*event\)"),
        (ONES, torch.zeros(0, 3), ONES, r"the means have shape \(0, 3\)"),
        (ONES, MEANS / 0, ONES, "the means are not all finite"),
        (ONES, MEANS.half(), ONES, "the means are torch.float16; give float32 or float64"),
        (ONES, "zero", ONES, "the means are 'zero'; give a tensor"),
        (ONES, MEANS, torch.ones(3), r"the covariances have shape \(3,\) .* \(2, 3, 3\) for matrices"),
        (ONES, MEANS, torch.ones(2, 2, 2), r"the covariances have shape \(2, 2, 2\)"),
        (ONES, MEANS, torch.tensor([1.0, 0.0]), "the smallest variance is 0; variances are positive"),
        (ONES, MEANS, -torch.ones(2, 3), "the smallest variance is -1"),
        (ONES, MEANS, LOPSIDED, "covariance 0 differs from its transpose by 0.5; give symmetric matrices"),
        (ONES, MEANS, torch.ones(2, 3, 3), "covariance 0 has the eigenvalue .*; give positive definite matrices"),
        (ONES, MEANS, MATRICES - 2 * torch.eye(3), "covariance 0 has the eigenvalue -1"),
    ],
)
def test_wrong_arguments_are_refused_in_a_sentence(weights, means, covariances, sentence):
    with pytest.raises(ArgumentError, match=sentence):
        GaussianMixture(weights, means, covariances)


@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        (torch.zeros(4, 2), r"x has shape \(4, 2\); this law's events have shape \(3,\), so give \(\*sample, 3\)"),
        (torch.zeros(()), r"x has shape \(\)"),
        (torch.zeros(4, 3).long(), "x is torch.int64; give a floating-point tensor"),
    ],
)
def test_wrong_states_are_refused_in_a_sentence(x, sentence):
    for quantity in (mixture("isotropic").log_prob, mixture("isotropic").score):
        with pytest.raises(ArgumentError, match=sentence):
            quantity(x)
