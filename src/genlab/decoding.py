"""How the next number of a sequence is drawn from what a network says of it."""

from torch import Tensor

from genlab.errors import GenlabError
from genlab.likelihood_heads import Head


class Decoding:
    """p(x)^(1/T) normalized, of the k likeliest tokens, and of these the fewest that have a share of p together.

    T is `temperature`; k is `top_k` (Fan et al. 2018, arXiv:1805.04833, section 5.4), null for all; p is `top_p` (Holtzman
    et al. 2020, arXiv:1904.09751, eq. 2 and 3), 1 for all. Raises GenlabError for values that leave no token.
    """

    needs = "network"
    steps = 1

    def __init__(self, temperature: float, top_k: int | None, top_p: float):
        if not temperature > 0:
            raise GenlabError(f"sampler.temperature={temperature}: above 0 is needed; towards 0 the likeliest is taken")
        if top_k is not None and top_k < 1:
            raise GenlabError(f"sampler.top_k={top_k}: at least 1 token must be left (null for all)")
        if not 0 < top_p <= 1:
            raise GenlabError(f"sampler.top_p={top_p}: a share above 0 and up to 1 is needed")
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p

    def __call__(self, head: Head, parameters: Tensor) -> Tensor:
        """The parameters of the law that is drawn from."""
        if self.temperature != 1:
            parameters = head.tempered(parameters, self.temperature)
        if self.top_k is not None or self.top_p < 1:
            parameters = head.truncated(parameters, self.top_k, self.top_p)
        return parameters
