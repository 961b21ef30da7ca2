"""Statistics for tests: comparisons within 6 standard errors, with a false-alarm rate of 2e-9 for each number compared."""

import torch

SIGMAS = 6.0


def assert_mean(samples, expected, *, sigmas=SIGMAS):
    """The mean over the first axis is as expected, coordinate by coordinate."""
    error = (samples.mean(0) - torch.as_tensor(expected)).abs()
    bound = sigmas * samples.std(0) / len(samples) ** 0.5
    assert (error <= bound).all(), f"off by {(error / bound * sigmas).max():.1f} standard errors"


def assert_variance(samples, expected, *, sigmas=SIGMAS):
    """The variance over the first axis is as expected; the standard error is that of the squared deviations."""
    assert_mean((samples - samples.mean(0)) ** 2 * (len(samples) / (len(samples) - 1)), expected, sigmas=sigmas)


def assert_moments(samples, mean, variance, *, sigmas=SIGMAS):
    assert_mean(samples, mean, sigmas=sigmas)
    assert_variance(samples, variance, sigmas=sigmas)


def standard_errors(samples, expected):
    """How many standard errors the mean is from what is expected: the measure by which a wrong version is seen to fail."""
    return float(((samples.mean(0) - expected).abs() / (samples.std(0) / len(samples) ** 0.5)).max())
