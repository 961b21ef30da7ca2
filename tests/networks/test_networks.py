"""The reference networks: shapes, times, conditions, gradients."""

import pytest
import torch
from closed_forms import close

import sdeflow as sf
from sdeflow.errors import ArgumentError


def made(name, **options):
    torch.manual_seed(0)
    if name == "mlp":
        return sf.networks.MLP((1, 4, 4), width=8, **options), (1, 4, 4)
    return sf.networks.UNet((1, 4, 4), width=8, **options), (1, 4, 4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["mlp", "unet"])
def test_one_time_or_one_per_row(name, dtype):
    """Every row sees its own time, whatever form it comes in, and rows do not see one another."""
    net, shape = made(name)
    net = net.to(dtype)
    x = torch.randn(3, *shape, dtype=dtype)
    t = torch.tensor([0.1, 0.5, 0.9], dtype=dtype)
    together = net(t.reshape(3, 1, 1, 1), x)
    assert together.shape == x.shape and together.dtype is dtype
    for row in range(3):
        close(net(t[row], x[row : row + 1])[0], together[row], 1e-5)
    assert not torch.allclose(net(0.1, x), net(0.9, x))


@pytest.mark.parametrize("name", ["mlp", "unet"])
def test_conditions(name):
    """Labels and contexts matter; −1, or no label, is one and the same; a label for all is one for each."""
    net, shape = made(name, classes=3, context=2)
    x, context = torch.randn(4, *shape), torch.randn(4, 2)
    with_it = net(0.5, x, label=torch.tensor([0, 1, 2, -1]), context=context)
    without = net(0.5, x, context=context)
    close(with_it[3], without[3], 1e-5)
    assert not torch.allclose(with_it[0], without[0])
    close(net(0.5, x, label=torch.tensor(2)), net(0.5, x, label=torch.full((4,), 2)), 1e-6)
    assert not torch.allclose(net(0.5, x), without)


@pytest.mark.parametrize("name", ["mlp", "unet"])
def test_a_label_beyond_the_classes_is_refused(name):
    """3 of 3 classes would be the row that stands for no label, silently."""
    net, shape = made(name, classes=3)
    for label in (3, 7):
        with pytest.raises(ArgumentError, match="not below 3"):
            net(0.5, torch.randn(2, *shape), label=torch.tensor([0, label]))


def test_gradient_is_the_gradient():
    """Against the quadratic form's, with conditions, with and without a graph; its Jacobian is symmetric."""
    torch.manual_seed(0)
    matrix = torch.randn(3, 3, dtype=torch.float64)

    def energy(t, x, scale):
        return 0.5 * scale * t.flatten() * (x @ matrix @ x.mT).diagonal()

    x, t = torch.randn(4, 3, dtype=torch.float64), torch.full((4, 1), 0.7, dtype=torch.float64)
    field = sf.networks.Gradient(energy, -1.0)
    expected = -0.7 * 2.0 * x @ (matrix + matrix.mT) / 2
    close(field(t, x, scale=2.0), expected)
    with torch.no_grad():
        close(field(t, x, scale=2.0), expected)
    net = sf.networks.Gradient(sf.networks.MLP(3, width=8, scalar=True).double())
    _, jacobian = sf.calculus.jacobian(lambda y: net(t, y), x)
    close(jacobian, jacobian.mT)
    net(t, x).sum().backward()
    assert net.energy.first.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    "ask, words",
    [
        (lambda: sf.networks.MLP(0), "≥ 1"),
        (lambda: sf.networks.UNet((2, 3, 4), levels=2), "fewer levels"),
        (lambda: sf.networks.UNet((2,)), "height, width"),
        (lambda: sf.networks.MLP(2)(0.5, torch.zeros(1, 2), label=torch.tensor([0])), "classes"),
        (lambda: sf.networks.MLP(2)(0.5, torch.zeros(1, 2), context=torch.zeros(1, 2)), "context"),
    ],
)
def test_refusals(ask, words):
    with pytest.raises(ArgumentError, match=words):
        ask()
