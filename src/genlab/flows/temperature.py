"""What flows are sampled at."""

from collections.abc import Sequence

from torch import Tensor

from genlab.errors import GenlabError
from genlab.noise import NoiseStream


class Tempered:
    """z ~ N(0, T² I): samples of p(x)^{1/T²} where a flow keeps volumes, and likelier ones elsewhere too.

    Kingma & Dhariwal 2018, arXiv:1807.03039, section 5.2. It is a choice of sampling: log_prob stays that of T = 1.
    """

    needs = "bijection"
    steps = 1

    def __init__(self, temperature: float):
        if not temperature > 0:
            raise GenlabError(f"sampler.temperature={temperature}: above 0 is needed (1 is the model itself)")
        self.temperature = temperature

    def latents(self, noise: NoiseStream, shape: Sequence[int]) -> Tensor:
        """z of that shape."""
        return self.temperature * noise.normal(shape)
