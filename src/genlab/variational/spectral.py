"""A price on the Lipschitz constants of convolutions, which keeps the rate of a deep ladder from growing without bounds."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.errors import GenlabError


class SpectralRegularization(nn.Module):
    """λ (Σ σ(W) over convolutions, W as (outputs, all else), + Σ max |γ| over batch norms), σ by `iterations` steps of the
    power method from where the last batch left it.

    Vahdat & Kautz 2020, arXiv:2007.03898, section 3.3 and its published code; Yoshida & Miyato 2017, arXiv:1705.10941.
    """

    def __init__(self, weight: float, iterations: int):
        super().__init__()
        if not weight >= 0 or iterations < 1:
            raise GenlabError(f"regularization.weight={weight}, iterations={iterations}: at least 0, and at least 1")
        self.weight, self.iterations = weight, iterations

    def watch(self, *networks: nn.Module) -> None:
        """Take these networks' layers; they stay theirs."""
        layers = [layer for network in networks for layer in network.modules()]
        groups: dict[tuple[int, int], list[nn.Conv2d]] = {}
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                groups.setdefault((len(layer.weight), layer.weight[0].numel()), []).append(layer)
        self._groups = [*groups.values()]  # of one shape, so that they are one batched product
        self._norms = [layer for layer in layers if isinstance(layer, nn.BatchNorm2d)]
        for i, ((rows, _), group) in enumerate(groups.items()):
            self.register_buffer(f"u{i}", F.normalize(torch.randn(len(group), rows), dim=1))

    def forward(self) -> Tensor:
        total = torch.stack([norm.weight.abs().max() for norm in self._norms]).sum() if self._norms else 0.0
        for i, group in enumerate(self._groups):
            w = torch.stack([layer.weight.flatten(1) for layer in group])  # (k, rows, columns)
            total = total + self._sigma(w, self.get_buffer(f"u{i}")).sum()
        return self.weight * torch.as_tensor(total)

    def _sigma(self, w: Tensor, u: Tensor) -> Tensor:
        with torch.no_grad():
            for _ in range(self.iterations):
                v = F.normalize(torch.einsum("kr,krc->kc", u, w), dim=1)
                u.copy_(F.normalize(torch.einsum("krc,kc->kr", w, v), dim=1))
        return torch.einsum("kr,krc,kc->k", u.clone(), w, v)
