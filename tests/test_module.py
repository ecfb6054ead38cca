"""What is written once for every family: mirrored images and the norms of gradients."""

import json
import math
from pathlib import Path

import pytest
import torch

from genlab.config import preflight
from genlab.data.source import Batch
from genlab.errors import GenlabError
from genlab.instantiation import build
from genlab.module import GenerativeModule
from genlab.training import train

FAMILIES = ["digits/vae", "digits/dcgan", "digits/ddpm"]
TINY = ["trainer.batch=16", "trainer.log_every=16", "evaluation.n=0", "logger=none", "trainer.max_images=64"]


def made(*overrides: str) -> GenerativeModule:
    return build(preflight("train", [*overrides, "logger=none"]).model)


def images(n: int) -> torch.Tensor:
    return torch.randint(0, 256, (n, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_half_of_the_images_are_mirrored_and_none_is_otherwise_changed() -> None:
    x, y = images(4000), torch.arange(4000)
    torch.manual_seed(1)
    batch = made("experiment=digits/vae", "data.flip=true").mirrored(Batch(x, y))
    flipped = (batch.x == x.flip(3)).all((1, 2, 3))
    assert torch.equal(batch.x[~flipped], x[~flipped])
    assert batch.x.dtype == torch.uint8
    assert batch.y is y
    assert abs(flipped.float().mean() - 0.5) < 4 * 0.5 / math.sqrt(4000)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("flip", [False, True])
def test_every_family_mirrors_in_training_and_only_there(
    family: str, flip: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = made(f"experiment={family}", f"data.flip={str(flip).lower()}")
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(module, "fit_batch", lambda batch: seen.append(batch.x) or {})
    monkeypatch.setattr(module, "loss", lambda x, y: seen.append(module.codec.decode(x)) or {})
    x = images(64) // 16 * 17  # on the lattice of the digits' 17 levels only at 0 and 255
    x = module.codec.decode(module.codec.encode(x))
    module.training_step(Batch(x, None), 0)
    module.validation_step(Batch(x, None), 0)
    trained, validated = seen
    assert torch.equal(trained, x) is not flip
    assert torch.equal(validated, x)


def test_points_cannot_be_mirrored() -> None:
    with pytest.raises(GenlabError, match=r"set data\.flip=false"):
        made("experiment=planar/vae", "data.flip=true")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_mirrored_run_goes_on_as_if_it_had_not_stopped(family: str, outputs: Path) -> None:
    overrides = [f"experiment={family}", "data.flip=true", *TINY]
    if family == "digits/ddpm":
        overrides.append("sampler.steps=2")
    weights = []
    for budgets in ((64,), (32, 64)):
        folder = outputs / str(len(budgets))
        for budget in budgets:
            train(preflight("train", [*overrides, f"trainer.max_images={budget}"]), folder)
        weights.append(torch.load(folder / "checkpoints" / "000000064.pt", weights_only=True)["state_dict"])
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        (["experiment=digits/vae"], ["grad_norm"]),
        (["experiment=digits/wgan_gp", "model.n_critic=2"], ["grad_norm/0", "grad_norm/1"]),
    ],
)
def test_history_has_the_norm_of_the_gradients_that_were_there(
    overrides: list[str], names: list[str], outputs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean of each optimizer's own norms since the last line, before clipping; none where it did not move."""
    norms: dict[str, list[float]] = {name: [] for name in names}
    own = GenerativeModule.on_before_optimizer_step

    def spied(self: GenerativeModule, optimizer: torch.optim.Optimizer) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        which = next(i for i, o in enumerate(self.trainer.optimizers) if o is optimizer)
        norms[names[which]].append(torch.cat([g.flatten() for g in gradients]).double().norm().item())
        own(self, optimizer)

    monkeypatch.setattr(GenerativeModule, "on_before_optimizer_step", spied)
    tiny = [*TINY, "trainer.log_every=32", "optimizer.clip_norm=0.01"]
    train(preflight("train", [*overrides, *tiny]), outputs / "run")
    rows = [json.loads(line) for line in (outputs / "run" / "history.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "train/images_per_second" in row]
    assert [row["images_seen"] for row in rows] == [32, 64]
    for name, found in norms.items():
        each = len(found) // 2  # 2 of a critic or a single optimizer, 1 of a generator whose turn is every second batch
        assert each == (1 if name == "grad_norm/0" else 2)
        for k, row in enumerate(rows):
            expected = sum(found[k * each : (k + 1) * each]) / each
            assert expected > 0.01
            assert row[f"train/{name}"] == pytest.approx(expected, rel=1e-5)
