"""x̂ brought into the range of data, against numpy."""

import numpy as np
import torch

from genlab.gaussian.thresholds import Clip, Dynamic


def test_clip():
    x = torch.tensor([[-3.0, -0.5, 0.7, 1.2]])
    assert torch.equal(Clip()(x), torch.tensor([[-1.0, -0.5, 0.7, 1.0]]))
    assert torch.equal(Clip(0.0, 0.6)(x), torch.tensor([[0.0, 0.0, 0.6, 0.6]]))


def test_dynamic_threshold_of_imagen():
    """s is each image's own percentile of |x̂|, at least 1; x̂ is clipped to ±s and divided by s."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 3, 4, 4)) * np.array([0.2, 1.0, 4.0])[:, None, None, None]
    s = np.maximum(np.percentile(np.abs(x).reshape(3, -1), 90, axis=1), 1)[:, None, None, None]
    assert (s[0], s[2] > 4) == (1, True)
    expected = torch.from_numpy(np.clip(x, -s, s) / s)
    torch.testing.assert_close(Dynamic(0.9)(torch.from_numpy(x)), expected)
