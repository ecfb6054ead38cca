"""Averages as they are kept in training, saved and swapped in."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.data import DataLoader

from genlab.averaging import Constant, HalfLife, PowerFunction, Ramped
from genlab.callbacks.budget import Budget
from genlab.callbacks.ema import EMA
from genlab.codec import Vectors
from genlab.config import preflight
from genlab.data.source import Batch
from genlab.errors import GenlabError
from genlab.module import GenerativeModule
from genlab.optimization import Optimization
from genlab.run import Run
from genlab.scoring import load
from genlab.training import train

B = 4
TINY = [
    "experiment=digits/vae",
    "optimizer.warmup_images=0",
    "trainer.batch=16",
    "trainer.log_every=16",
    "evaluation.n=0",
    "logger=none",
]


class Regression(GenerativeModule):
    """A line, with running statistics and a part that is not averaged."""

    averaged = ("network.part",)

    def __init__(self, **common: Any):
        super().__init__(**common)
        self.network = nn.ModuleDict(
            {"part": nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), "rest": nn.Linear(2, 2)}
        )

    def loss(self, x: Tensor, y: Tensor | None) -> dict[str, Tensor]:
        return {"loss": (self.network["rest"](self.network["part"](x)) - x.roll(1, 1)).square().mean()}

    def sample(self, noise: Any, n: int, y: Tensor | None = None) -> Tensor:
        raise NotImplementedError


class Snapshots(L.Callback):
    """The averaged part's weights after each batch."""

    def __init__(self):
        self.taken: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer: L.Trainer, module: Regression, *_: Any) -> None:  # pyright: ignore
        self.taken.append({name: p.detach().clone() for name, p in module.network["part"].named_parameters()})


def line(averaging: Any) -> Regression:
    torch.manual_seed(0)
    return Regression(
        codec=Vectors(1.0), shape=(2,), optimizer=Optimization(torch.optim.SGD, lr=0.3), averaging=averaging
    )


def fitted(
    module: Regression, ema: EMA, folder: Path, batches: int = 6, more: Sequence[L.Callback] = ()
) -> list[dict[str, Tensor]]:
    """The weights before the first batch and after each."""
    data = [Batch(torch.randn(B, 2, generator=torch.Generator().manual_seed(k)), None) for k in range(batches)]
    weights = Snapshots()
    before = {name: p.detach().clone() for name, p in module.network["part"].named_parameters()}
    L.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[*more, ema, Budget(0, B), weights],
    ).fit(module, DataLoader(data, batch_size=None))  # type: ignore[arg-type]
    return [before, *weights.taken]


def test_averages_are_the_published_recursions_in_images(tmp_path: Path) -> None:
    """θ̄ ← β θ̄ + (1 - β) θ with the β of each paper's code, by its own count of images."""
    rules = {
        "ema": Constant(0.7),
        "ramped": Ramped(0.3),
        "half": HalfLife(10.0, 0.5),
        "power": PowerFunction(0.1),
    }
    module = line(rules)
    ema = EMA(module, B, lambda: module)
    weights = fitted(module, ema, tmp_path)
    gamma = PowerFunction(0.1).gamma
    betas = {
        "ema": lambda n: 0.7,
        "ramped": lambda n: min(0.3, (1 + n) / (10 + n)),
        "half": lambda n: 0.5 ** (B / max(min(10.0, 0.5 * (n - 1) * B), 1e-8)),  # EDM counts the batch afterwards,
        "power": lambda n: (1 - B / (n * B)) ** (gamma + 1),  # and EDM2 before
    }
    assert module.images_seen == 6 * B
    for name, beta in betas.items():
        kept = dict(ema.shadows[name]["network/part"].named_parameters())
        for key, average in weights[0].items():
            for n, now in enumerate(weights[1:], start=1):
                average = beta(n) * average + (1 - beta(n)) * now[key]
            torch.testing.assert_close(kept[key], average, rtol=1e-5, atol=1e-6)
    assert not torch.equal(kept["0.weight"], weights[-1]["0.weight"])


def test_the_first_average_is_applied_and_raw_weights_come_back(tmp_path: Path) -> None:
    module = line({"ema": Constant(0.5), "slow": Constant(0.99)})
    ema = EMA(module, B, lambda: module)
    fitted(module, ema, tmp_path)
    raw = {name: value.clone() for name, value in module.state_dict().items()}
    averages = {name: {k: v.clone() for k, v in state.items()} for name, state in ema.state().items()}
    with ema.applied(module):
        for name, value in averages["ema"].items():
            assert torch.equal(module.state_dict()[name.replace("/", ".")], value)
        assert torch.equal(module.network["rest"].weight, raw["network.rest.weight"])
        assert not torch.equal(module.network["part"][0].weight, raw["network.part.0.weight"])
    assert all(torch.equal(value, raw[name]) for name, value in module.state_dict().items())
    # running statistics are the latest, whatever the rule
    assert torch.equal(averages["slow"]["network/part.1.running_mean"], raw["network.part.1.running_mean"])


def test_an_average_is_divided_by_its_own_largest_singular_value(tmp_path: Path) -> None:
    """And not by that of the last weights, whose direction is another: they turn by a third of a circle in all."""
    module = line(Constant(0.99))
    layer = spectral_norm(nn.Linear(2, 2))
    module.network["part"][0] = layer
    ema = EMA(module, B, lambda: module)
    turn = torch.linspace(0, 2, 400)

    class Turning(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, module: Regression, batch: Any, k: int) -> None:  # pyright: ignore
            c, s = turn[k].cos(), turn[k].sin()
            with torch.no_grad():
                layer.parametrizations.weight.original.copy_(
                    torch.diag(torch.tensor([3.0, 1.0])) @ torch.stack([torch.stack([c, s]), torch.stack([-s, c])])
                )  # pyright: ignore

    fitted(module, ema, tmp_path, batches=400, more=[Turning()])
    shadow = ema.shadows["ema"]["network/part"][0].eval()  # pyright: ignore
    assert torch.linalg.matrix_norm(shadow.weight, 2).item() == pytest.approx(1, abs=1e-3)
    u, v = layer.parametrizations.weight[0]._u, layer.parametrizations.weight[0]._v  # pyright: ignore
    average = shadow.parametrizations.weight.original
    assert (u @ average @ v).item() < 0.97 * torch.linalg.matrix_norm(average, 2).item()


def test_state_goes_round(tmp_path: Path) -> None:
    module = line(Constant(0.5))
    ema = EMA(module, B, lambda: module)
    fitted(module, ema, tmp_path)
    state = ema.state()
    assert list(state) == ["ema"]
    other = EMA(line(Constant(0.5)), B, lambda: module)
    other.restore(state)
    assert all(torch.equal(value, state["ema"][name]) for name, value in other.state()["ema"].items())


def test_a_run_begins_with_its_first_weights_and_keeps_every_average(outputs: Path) -> None:
    """β is 0 at the first batch of a real run, so its callbacks are in the order that the count of images needs."""
    for option in ("half_life", "power"):
        folder = outputs / option
        train(preflight("train", [*TINY, f"averaging={option}", "trainer.max_images=16"]), folder)
        state = Run(folder).load_checkpoint()
        assert state is not None
        for average in state["averages"].values():
            assert all(torch.equal(v, state["state_dict"][k.replace("/", ".")]) for k, v in average.items())
    train(preflight("train", [*TINY, "averaging=power", "trainer.max_images=48"]), outputs / "power")
    run = Run(outputs / "power")
    state = run.load_checkpoint()
    assert state is not None
    assert list(state["averages"]) == ["ema", "long"]
    found = {
        weights: load(run, run.config, weights, trust=False)[0].state_dict()["encoder.layers.0.weight"]
        for weights in ("ema", "long", "raw")
    }
    assert torch.equal(found["raw"], state["state_dict"]["encoder.layers.0.weight"])
    # of three updates the longer average is farther from the last
    distance = {name: (value - found["raw"]).abs().sum() for name, value in found.items()}
    assert distance["long"] > distance["ema"] > 0
    with pytest.raises(GenlabError, match="weights=lng - did you mean long\\?; there is ema, long and raw"):
        load(run, run.config, "lng", trust=False)
