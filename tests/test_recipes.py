"""Every YAML, by glob: a new recipe is tested the moment it exists."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

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
    default = preflight("train", [f"model={name}"])
    small = (
        [] if default.sampler is None else ["network=unet_small", "sampler.steps=2"]
    )  # the papers' sizes are for GPUs
    config = preflight("train", [f"model={name}", f"model.classes={classes}", *small, *SMALL])
    train(config, outputs / "run")
    assert (outputs / "run" / "samples" / "final.png").is_file()
    assert (outputs / "run" / "checkpoints" / "000000032.pt").is_file()


@pytest.mark.parametrize("name", options("experiment"))
def test_every_experiment_trains_two_batches_draws_and_scores(name: str, outputs: Path) -> None:
    config = preflight("train", [f"experiment={name}", *SMALL])
    quick = [] if config.sampler is None else ["sampler.steps=2"]
    quick += [] if config.likelihood is None else ["likelihood.tolerance=1"]
    config = preflight("train", [f"experiment={name}", *quick, *SMALL])
    objective = train(config, outputs / "run")
    assert objective is not None
    assert torch.isfinite(torch.tensor(objective))


@pytest.mark.parametrize("name", options("sampler"))
def test_every_sampler_may_replace_that_of_an_experiment(name: str) -> None:
    assert build(preflight("train", ["experiment=digits/ddpm", f"sampler={name}"]).sampler).steps > 0


def test_a_model_beats_the_default_network_and_the_command_line_beats_the_model() -> None:
    assert "generator" in preflight("train", ["model=dcgan"]).network
    assert preflight("train", ["model=ddpm"]).sampler._target_.endswith("Ancestral")
    assert preflight("train", ["model=ddpm", "sampler=ddim"]).sampler._target_.endswith("DDIM")
    config = preflight("train", ["experiment=digits/ddpm", "sampler=ddim", "sampler.steps=7", "optimizer.lr=0.5"])
    assert (config.sampler.steps, config.optimizer.lr) == (7, 0.5)
