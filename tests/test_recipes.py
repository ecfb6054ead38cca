"""Every YAML, by glob: a new recipe is tested the moment it exists."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra.errors import HydraException
from omegaconf import OmegaConf

from genlab.config import conf_dir, preflight
from genlab.instantiation import build, locate
from genlab.training import train

SMALL = ["trainer.max_images=32", "trainer.batch=16", "evaluation.n=24", "logger=none", "trainer.log_every=16"]


def options(group: str) -> list[str]:
    folder = conf_dir() / group
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("[!_]*.yaml"))


def targets(node: Any) -> list[dict[str, Any]]:
    """Every mapping with a `_target_` below a node."""
    if isinstance(node, dict):
        own = [node] if isinstance(node.get("_target_"), str) and "${" not in node["_target_"] else []
        return own + [found for child in node.values() for found in targets(child)]
    return [found for child in node for found in targets(child)] if isinstance(node, list) else []


@pytest.mark.parametrize("path", sorted(conf_dir().rglob("*.yaml")), ids=lambda p: str(p.relative_to(conf_dir())))
def test_every_target_resolves_and_takes_its_arguments(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# "), "line 1 of a configuration says what it is, or cites it"
    found = targets(yaml.safe_load(text))
    for node in found:
        arguments = {k: v for k, v in node.items() if not k.startswith("_") and k != "defaults"}
        bound = inspect.signature(locate(node["_target_"])).bind_partial(**arguments)
        assert bound.arguments.keys() or not arguments


@pytest.mark.parametrize("name", options("model"))
@pytest.mark.parametrize("classes", [0, 10])
def test_every_model_trains_two_batches_and_draws(name: str, classes: int, outputs: Path) -> None:
    network = preflight("train", [f"model={name}"]).network
    small = ["network=unet_small"] if network["_target_"] if "_target_" in network else None else []
    config = preflight("train", [f"model={name}", f"model.classes={classes}", *small, *few_steps(name), *SMALL])
    train(config, outputs / "run")
    assert (outputs / "run" / "samples" / "final.png").is_file()
    assert (outputs / "run" / "checkpoints" / "000000032.pt").is_file()


def few_steps(name: str) -> list[str]:
    has_sampler = preflight("train", [f"model={name}"]).sampler is not None
    return ["sampler.steps=2"] if has_sampler else []


@pytest.mark.parametrize("name", options("experiment"))
def test_every_experiment_trains_two_batches_draws_and_scores(name: str, outputs: Path) -> None:
    config = preflight("train", [f"experiment={name}", *SMALL])
    if config.sampler is not None:
        config = preflight("train", [f"experiment={name}", "sampler.steps=2", *SMALL])
    objective = train(config, outputs / "run")
    assert objective is not None
    assert torch.isfinite(torch.tensor(objective))


@pytest.mark.parametrize("name", options("sampler"))
def test_every_sampler_builds(name: str) -> None:
    build(OmegaConf.load(conf_dir() / "sampler" / f"{name}.yaml"))


def test_a_model_beats_the_default_network_and_the_command_line_beats_the_model() -> None:
    assert "generator" in preflight("train", ["model=dcgan"]).network
    assert preflight("train", ["model=ddpm"]).sampler._target_.endswith("Ancestral")
    assert preflight("train", ["model=ddpm", "sampler=ddim"]).sampler._target_.endswith("DDIM")
    config = preflight("train", ["experiment=digits/ddpm", "sampler=ddim", "sampler.steps=7", "optimizer.lr=0.5"])
    assert (config.sampler.steps, config.optimizer.lr) == (7, 0.5)


def test_hydra_itself_composes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises((HydraException, Exception), match="ddpn"):
        preflight("train", ["model=ddpn"])
