"""Hierarchical variational autoencoders: a ladder of latents, inferred and drawn from the top down."""

import math
import sys
from typing import Any

import torch
from torch import Tensor, nn

from genlab.data.source import Batch
from genlab.errors import GenlabError
from genlab.likelihood_heads import Head
from genlab.module import GenerativeModule
from genlab.noise import NoiseStream
from genlab.precision import wide
from genlab.variational.ex_post import ExPost
from genlab.variational.ladder import Descent, Parametrization
from genlab.variational.objectives import Objective, Sampled
from genlab.variational.posterior import log_normal
from genlab.variational.spectral import SpectralRegularization
from genlab.variational.temperature import Temperature

SILENT = 0.1  # nats, below which a level says nothing of the image; as the published code of NVAE counts channels
ACTIVE = 0.01  # Var_x E[ζ | x] of a latent in use; Burda et al. 2016, section 5.2


class HVAE(GenerativeModule):
    """p(x, z) = p(x | z) Π_l p(z_l | z above), q(z | x) = Π_l q(z_l | z above, x): distortion = -E_q log p(x | z),
    rate = Σ_l E_q KL(q(z_l | ...) ‖ p(z_l | ...)), and an objective made of both.

    Sønderby et al. 2016, arXiv:1602.02282; Vahdat & Kautz 2020, arXiv:2007.03898, eq. 1; Child 2021, arXiv:2011.10650. A
    latent, of `encode`, `render` and samplers, is ζ (B, D) of all levels, from the top down: z_l = μ_p + s_p ζ_l. log_prob is
    the importance-weighted bound with `importance` samples, of which one at a time is in memory. `noisy` samples are draws
    from p(x | z), others its mean.
    """

    likelihood = "bound"
    averaged = ("encoder", "decoder")
    collapses: Tensor

    def __init__(
        self,
        *,
        encoder: nn.Module,
        decoder: nn.Module,
        head: Head,
        parametrization: Parametrization,
        objective: Objective,
        importance: int,
        noisy: bool,
        regularization: SpectralRegularization | None = None,
        sampler: ExPost | Temperature | None = None,
        **common: Any,
    ):
        super().__init__(**common)
        if importance < 1:
            raise GenlabError(f"model.importance={importance}: the bound needs 1 sample (the ELBO) or more")
        self.encoder, self.decoder, self.head = encoder, decoder, head
        self.parametrization, self.objective = parametrization, objective
        self.discrete, self.sampler, self.noisy = head.discrete, self.drawn_by(sampler), noisy
        shapes: list[tuple[int, ...]] = decoder.shapes  # pyright: ignore[reportAssignmentType] - of the levels
        self.levels = [math.prod(shape) for shape in shapes]
        if isinstance(self.sampler, ExPost):
            self.sampler.check(sum(self.levels), self.classes)
        self.importance, self.bound = importance, "ELBO" if importance == 1 else f"IW-{importance}"
        self.regularization = regularization
        if regularization is not None:
            regularization.watch(encoder, decoder)
        self._unseen = True
        self.register_buffer("collapses", torch.zeros((), dtype=torch.int64))  # passes in a row over held-out data
        self._rates: list[Tensor] = []  # of a pass over the held-out data, (L,) of each batch
        self._codes = Moments()

    def loss(self, x: Tensor, y: Tensor | None) -> dict[str, Tensor]:
        if self._unseen:  # once: on a GPU it waits
            self.head.check(x)
            self._unseen = False
        if self.head.unbounded:
            x = self.codec.spread(x)
        features = self.encoder(x, y)
        ways = [self._inferred(x, y, features, self._eps(x)) for _ in range(self.objective.draws)]
        rates = ways[0][1].rates
        s = Sampled(
            distortion=torch.stack([-self.head.log_prob(x, parameters) for parameters, _ in ways]),
            log_ratio=torch.stack([_log_ratio(way) for _, way in ways]),
            rate=rates,
            z=ways[0][1].code,
            pairs=_no_pairs,
            prior=lambda: self._eps(x),
            sizes=self.levels,
        )
        terms = {**self.objective(s, self.images_seen), "rate": s.mean_rate, "distortion": s.distortion.mean()}
        if self.regularization is not None and self.training:
            terms["spectral"] = self.regularization()
            terms["loss"] = terms["loss"] + terms["spectral"]
        return terms | {f"rate/{level}": rate for level, rate in enumerate(rates.mean(0))}

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        if len(batch.x) < self.objective.fewest:
            return {}
        terms = super().validation_step(batch, batch_idx)
        self._rates.append(torch.stack([terms[f"rate/{level}"] for level in range(len(self.levels))]))
        self._codes.add(self.encode(self.codec.encode(batch.x), batch.y if self.classes else None))
        return terms

    def validated(self) -> dict[str, Tensor]:
        """Of the pass that ended: active latents of all and of each level (Burda et al. 2016, arXiv:1509.00519, section 5.2),
        and how many levels say nothing of the image."""
        rates, variance = torch.stack(self._rates).mean(0), self._codes.variance()
        self._rates, self._codes = [], Moments()
        active = torch.stack([(part > ACTIVE).float().sum() for part in variance.split(self.levels)])
        silent = (rates < SILENT).nonzero()[:, 0].tolist()
        self.collapses.copy_((self.collapses + 1) * bool(silent))
        if self.collapses == 2:  # in a row: at first nothing is learned yet
            print(
                f"genlab: posterior collapse at {self.images_seen} images: {_listed(silent)} of {len(self.levels)}, counted from "
                f"the top from 0, below {SILENT} nats; try variational/objective=warm_up, balanced, or free_bits "
                "with variational.objective.nats=4 (of each level)",
                file=sys.stderr,
            )
        each = {f"active/{level}": count for level, count in enumerate(active)}
        if self.collapses > 1:
            each["alarm"] = torch.ones(())
        return {"active_units": active.sum(), "collapsed": rates.new_tensor(float(len(silent))), **each}

    def sample(self, noise: NoiseStream, n: int, y: Tensor | None = None) -> Tensor:
        z = self.latents(noise, n)
        if not self.noisy:
            return self.render(z, y)
        return self.head.sample(self._generated(z, y), noise.uniform((n, *self.shape)))

    def latents(self, noise: NoiseStream, n: int) -> Tensor:
        """ζ of the prior, or of the `sampler`, (n, D)."""
        return self.draw(noise, n) if self.sampler is None else self.sampler.sample(self, noise, n)

    def draw(self, noise: NoiseStream, n: int, temperature: float = 1.0) -> Tensor:
        """(n, D) ζ ~ N(0, t²), level by level: a deep ladder has hundreds of thousands."""
        return torch.cat([temperature * noise.normal((n, size)) for size in self.levels], dim=1)

    def encode(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """(B, D) the mean of q(ζ_l | x, ζ above), with what is above at its mean."""
        return self._inferred(x, y, self.encoder(x, y), torch.zeros_like(self._eps(x)))[1].code

    def render(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """The mean of p(x | z)."""
        return self.head.mean(self._generated(z, y))

    def log_prob(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """log (1/k) Σ_i p(x, z_i)/q(z_i | x), z_i ~ q. Burda et al. 2016, arXiv:1509.00519, eq. 8."""
        self.head.check(x)
        features, terms = self.encoder(x, y), []
        for _ in range(self.importance):
            parameters, way = self._inferred(x, y, features, self._eps(x))
            terms.append(self.head.log_prob(x, parameters) - _log_ratio(way))
        return torch.logsumexp(torch.stack(terms), dim=0) - math.log(self.importance)

    def _eps(self, x: Tensor) -> Tensor:
        return torch.randn(len(x), sum(self.levels), dtype=x.dtype, device=x.device)

    def _inferred(self, x: Tensor, y: Tensor | None, features: Any, eps: Tensor) -> tuple[Tensor, Descent]:
        way = Descent(self.parametrization)
        parameters = wide(self.decoder(eps, way, y, features))
        return self.head.fitting(parameters, x.shape[1]), way

    def _generated(self, z: Tensor, y: Tensor | None) -> Tensor:
        return self.decoder(z, Descent(self.parametrization), y)


class Moments:
    """The variance of columns over batches of rows, without keeping the rows."""

    def __init__(self):
        self.n, self.sums = 0, torch.zeros(2, 0)

    def add(self, rows: Tensor) -> None:
        rows = rows.double()
        sums = torch.stack([rows.sum(0), rows.square().sum(0)])
        self.n, self.sums = self.n + len(rows), sums if not self.n else self.sums + sums

    def variance(self) -> Tensor:
        mean, square = self.sums / self.n
        return square - mean**2


def _log_ratio(way: Descent) -> Tensor:
    """(B,) log q(z | x) - log p(z): of ζ, as the change of scale is in both."""
    return way.log_q - log_normal(way.code).sum(1)


def _no_pairs() -> Tensor:
    raise GenlabError(
        "a total correlation needs latents of one level: take a flat VAE, or another variational/objective"
    )


def _listed(levels: list[int]) -> str:
    return f"level{'s' if len(levels) > 1 else ''} {', '.join(map(str, levels))}"
