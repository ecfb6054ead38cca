"""Draws from a fitted mixture have the moments of the codes that it was fitted to."""

import pytest
import torch
from torch import Tensor

from genlab.codec import Vectors
from genlab.config import preflight
from genlab.data.source import Batch
from genlab.errors import GenlabError
from genlab.evaluation.drawing import Cost, drawn
from genlab.instantiation import build
from genlab.noise import NoiseStream
from genlab.variational.ex_post import ExPost

MEANS = torch.tensor([[3.0, -2.0], [-3.0, 2.0]])
FACTOR = torch.tensor([[1.0, 0.0], [0.9, 0.3]])


class Codes:
    """A split of codes of two clusters, three rows of four in the first."""

    def split(self, name: str) -> Batch:
        assert name == "train"
        generator = torch.Generator().manual_seed(0)
        k = (torch.arange(4000) % 4 == 3).long()
        return Batch(MEANS[k] + torch.randn(4000, 2, generator=generator) @ FACTOR.T, None)


class Identity:
    """A model whose code of x is x plus what it has seen."""

    codec, classes, device, images_seen = Vectors(1.0), 0, "cpu", 0

    def encode(self, x: Tensor) -> Tensor:
        return x + self.images_seen


def test_draws_have_the_moments_of_the_codes() -> None:
    z = ExPost(Codes(), 2, 4000, 0).sample(Identity(), NoiseStream(0), 20_000)  # type: ignore[arg-type]
    first = z[:, 0] > z[:, 1]
    assert first.float().mean().item() == pytest.approx(0.75, abs=0.015)
    for cluster, mean in ((z[first], MEANS[0]), (z[~first], MEANS[1])):
        torch.testing.assert_close(cluster.mean(0), mean, rtol=0, atol=0.12)
        torch.testing.assert_close(cluster.T.cov(), FACTOR @ FACTOR.T, rtol=0, atol=0.12)


def test_a_draw_depends_on_its_row_alone_and_the_fit_on_the_model_as_it_stands() -> None:
    sampler, model = ExPost(Codes(), 2, 500, 0), Identity()
    whole = sampler.sample(model, NoiseStream(0), 8)  # type: ignore[arg-type]
    parts = [sampler.sample(model, NoiseStream(0, start), n) for start, n in ((0, 5), (5, 3))]  # type: ignore[arg-type]
    torch.testing.assert_close(whole, torch.cat(parts))
    model.images_seen = 7
    torch.testing.assert_close(sampler.sample(model, NoiseStream(0), 8), whole + 7, rtol=0, atol=1e-3)  # type: ignore[arg-type]


def test_fitting_is_no_part_of_what_a_sample_costs() -> None:
    """One evaluation of the decoder each; the encoder's, of 500 images, come before the clock."""
    module = build(preflight("train", ["experiment=digits/vae_ex_post", "evaluation.n=0"]).model)
    cost = Cost()
    for _ in drawn(module, 16, 8, 0, cost):
        pass
    assert cost.nfe == 1


def test_mistakes_are_one_line() -> None:
    with pytest.raises(GenlabError, match="components=0"):
        ExPost(Codes(), 0, 10, 0)  # type: ignore[arg-type]
    with pytest.raises(GenlabError, match="not finite"):
        ExPost(Codes(), 2, 10, 0).fit(torch.full((10, 2), torch.nan))  # type: ignore[arg-type]
    for latent, classes, told in ((2, 10, "model.classes=0"), (51_200, 0, "all 51200 latents: at most 4096")):
        with pytest.raises(GenlabError, match=told):
            ExPost(Codes(), 2, 10, 0).check(latent, classes)  # type: ignore[arg-type]
    model = Identity()
    model.classes = 3
    with pytest.raises(GenlabError, match="unconditional"):
        ExPost(Codes(), 2, 10, 0).sample(model, NoiseStream(0), 4)  # type: ignore[arg-type]
