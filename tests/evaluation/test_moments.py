import torch

from genlab.evaluation.moments import Moments


def test_moments_are_those_of_numpy_in_any_order_and_partition():
    torch.manual_seed(0)
    features = torch.randn(10_000, 6) @ torch.randn(6, 6) + 5
    whole = Moments.of(features)
    torch.testing.assert_close(whole.mean, features.double().mean(0))
    torch.testing.assert_close(whole.covariance, features.double().T.cov())
    shuffled = features[torch.randperm(len(features))]
    merged = Moments.of(shuffled[:17]).merge(Moments.of(shuffled[17:5000])).merge(Moments.of(shuffled[5000:]))
    assert merged.n == 10_000
    torch.testing.assert_close(merged.covariance, whole.covariance, rtol=1e-11, atol=1e-12)


def test_half_precision_features_are_summed_in_float64():
    torch.manual_seed(0)
    features = torch.randn(5000, 3).half()
    torch.testing.assert_close(Moments.of(features).mean, features.double().mean(0), rtol=1e-12, atol=1e-14)
