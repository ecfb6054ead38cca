"""Every YAML, by glob: a new recipe is tested the moment it exists."""

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from genlab.config import preflight
from genlab.errors import GenlabError
from genlab.folders import conf_dir, sweeps_dir
from genlab.instantiation import build
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
        bound = inspect.signature(get_object(node["_target_"])).bind_partial(**arguments)
        assert bound.arguments.keys() or not arguments


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Small data sets of random colour images, by size, in place of those that have to be downloaded."""
    rng, found = np.random.default_rng(0), {}
    for size in (32, 64):
        path = tmp_path_factory.mktemp("pictures") / f"{size}.npz"
        x = rng.integers(0, 256, (96, size, size, 3), dtype=np.uint8)
        np.savez(path, x_train=x[:72], y_train=np.arange(72) % 10, x_test=x[72:], y_test=np.arange(24) % 10)
        found[size] = path
    found[256] = tmp_path_factory.mktemp("texts") / "text.txt"  # in rows of 256 bytes
    found[256].write_text("\n".join(f"{i} and {i} are {2 * i}" for i in range(1000)))
    return found


def shrunk(config: DictConfig, pictures: dict[int, Path]) -> list[str]:
    """What makes a recipe of any size train two batches in seconds."""
    small = ["optimizer.warmup_images=0"]  # or Langevin divides by a score that is still 0
    for key, value in (
        ("sampler.steps", 2),
        ("sampler.inner", 1),
        ("sampler.tolerance", 1),
        ("network.tolerance", 1),
        ("likelihood.tolerance", 1),
        ("likelihood.terms", 2),
        ("likelihood.most", 2),  # an ODE that gives up costs its number and no other
        ("model.importance", 2),
    ):
        if OmegaConf.select(config, key, default=missing) is not missing:
            small.append(f"{key}={value}")
    for group in ("metrics", "module_metrics"):
        chosen = config.evaluation[group] or {}
        small += [f"evaluation.{group}.{name}.most=24" for name, metric in chosen.items() if "most" in metric]
    if "generator" in config.network and "width" in config.network:
        small.append("network.width=32")  # hundreds of channels, whatever the images
    if config.data.shape[-1] > 8:
        rendered = "path" not in config.data.source
        few = ["train=64", "test=64"] if rendered else [f"path={pictures[config.data.shape[-1]]}"]
        small += [f"data.source.{value}" for value in few]
        small += ["trainer.precision=32-true", "evaluation.batch=24"]
        small += ["evaluation.features.images=64"] if "images" in config.evaluation.features else []
        small += ["network.width=32"] if "width" in config.network else []
        small += [f"network.{key}=1" for key in ("blocks", "depth") if key in config.network]
    return small


missing = object()


AUTOENCODERS = ("vqvae", "kl_autoencoder")


@pytest.mark.parametrize("name", [name for name in options("model") if not name.startswith("noisy_classifier")])
@pytest.mark.parametrize("classes", [0, 10])
def test_every_model_trains_two_batches_and_draws(
    name: str, classes: int, outputs: Path, pictures: dict[int, Path]
) -> None:
    default = preflight("train", [f"model={name}"])
    small = shrunk(default, pictures)
    if name in AUTOENCODERS and classes:
        pytest.skip("it takes no labels, which is tested with it")
    if "denoiser" in default.model:
        small.append("network=unet_small")  # the papers' sizes are for GPUs
    if "joint" in default.model:
        small += ["network.width=32", *(f"network.{key}=1" for key in ("blocks", "depth") if key in default.network)]
    config = preflight("train", [f"model={name}", f"model.classes={classes}", *small, *SMALL])
    train(config, outputs / "run")
    assert (outputs / "run" / "samples" / "final.png").is_file()
    assert (outputs / "run" / "checkpoints" / "000000032.pt").is_file()


def first_stage(name: str, outputs: Path, pictures: dict[int, Path]) -> list[str]:
    """The override that a recipe on the latents of an autoencoder waits for, which is trained for it."""
    if "/codec:" not in (conf_dir() / "experiment" / f"{name}.yaml").read_text():
        return []
    stage = f"experiment={name.split('/')[0]}/vqvae"
    small = shrunk(preflight("train", [stage]), pictures)
    train(preflight("train", [stage, *small, *SMALL]), outputs / "first")
    return [f"codec.run={outputs / 'first'}"]


LARGE = ("cifar10/", "imagenet64/")  # seconds each, however small


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n.startswith(LARGE) else ()) for n in options("experiment")],
)
def test_every_experiment_trains_two_batches_draws_and_scores(
    name: str, outputs: Path, pictures: dict[int, Path]
) -> None:
    stage = first_stage(name, outputs, pictures)
    default = preflight("train", [f"experiment={name}", *stage])
    packing = default.model.get("packing", 1)
    whole = [f"trainer.batch={16 // packing * packing}"]  # packs
    config = preflight("train", [f"experiment={name}", *stage, *shrunk(default, pictures), *SMALL, *whole])
    if "run" in (config.coupling or {}):  # it learns from a teacher
        teacher = config.copy()
        teacher.model.coupling = None
        train(teacher, outputs / "teacher")
        config.model.coupling.run = str(outputs / "teacher")
    objective = train(config, outputs / "run")
    assert objective is not None
    assert torch.isfinite(torch.tensor(objective))
    rows = map(json.loads, (outputs / "run" / "history.jsonl").read_text().splitlines())
    assert not [row for row in rows for key, value in row.items() if "skipped" in key and value == 1], "nothing moves"


@pytest.mark.parametrize("name", ["gan", "vae", "ddpm"])
def test_mode_collapse_in_1200_dimensions_trains_draws_and_scores_at_both_distances(
    name: str, outputs: Path, pictures: dict[int, Path]
) -> None:
    collapse = [f"experiment=mode_collapse/{name}", "data=veegan/subspaces", "evaluation=mode_collapse_1200d"]
    few = ["data.source.n_train=64", "data.source.n_test=64"]
    small = [value for value in shrunk(preflight("train", collapse), pictures) if value.startswith("sampler")]
    train(preflight("train", [*collapse, *few, *small, *SMALL, "trainer.batch=16"]), outputs / "run")
    found = {json.loads(line)["metric"] for line in (outputs / "run" / "metrics.jsonl").read_text().splitlines()}
    assert {"modes", "high_quality", "modes_28", "high_quality_28"} <= found
    assert not {"nll", "nll_gap"} & found


def test_a_recipe_that_is_no_papers_has_no_published_number_not_even_an_inherited_one() -> None:
    own = [
        name
        for name in options("experiment")
        if "no paper's number" in (conf_dir() / f"experiment/{name}.yaml").read_text()
    ]
    assert len(own) >= 6
    assert not [name for name in own if preflight("train", [f"experiment={name}"]).published]


@pytest.mark.parametrize("path", sorted(sweeps_dir().glob("*.yaml")), ids=lambda path: path.stem)
def test_every_sweep_is_of_recipes_that_there_are(path: Path) -> None:
    params = OmegaConf.select(OmegaConf.load(path), "hydra.sweeper.params", default={})
    for key in ("experiment", "data"):
        assert {name.strip() for name in params.get(key, "").split(",") if name} <= set(options(key))


@pytest.mark.parametrize("name", options("sampler"))
def test_every_sampler_may_replace_that_of_an_experiment(name: str) -> None:
    assert build(preflight("train", ["experiment=digits/ddpm", f"sampler={name}"]).sampler).steps > 0


@pytest.mark.parametrize("recipe", [["experiment=cifar10/ddim"], ["experiment=digits/ddpm", "sampler=ddim_quad"]])
def test_quadratic_steps_suit_the_models_that_the_paper_draws_from_by_them(recipe: list[str]) -> None:
    assert build(preflight("train", [*recipe, "network=unet_small"]).model).sampler.steps in (50, 100)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (["experiment=digits/ddpm", "augment=edm"], r"network\.augmentations=9"),
        (["experiment=planar/ddpm", "augment=edm"], "leave it out"),
        (["model=transformer", "data=planar/ring"], "of no levels"),
        (["experiment=digits/pixelcnnpp", "sampler=nucleus"], r"sampler\.temperature alone"),
        (["experiment=digits/edm", "network.width=33"], "even number, not 33"),
        (["experiment=digits/edm", "sampler=dpmpp_2m"], r"equal steps of σ.*use sampler=edm"),
    ],
)
def test_what_a_model_cannot_use_is_refused_before_training(recipe: list[str], message: str) -> None:
    with pytest.raises(GenlabError, match=message):
        build(preflight("train", recipe).model)


def test_a_sampler_on_the_path_of_edm_takes_its_grid_from_the_command_line() -> None:
    with pytest.raises(GenlabError) as caught:
        build(preflight("train", ["experiment=digits/edm", "sampler=dpmpp_2m"]).model)
    remedy = str(caught.value).split("'")[1]
    build(preflight("train", ["experiment=digits/edm", "sampler=dpmpp_2m", remedy]).model)


LEAVABLE = ("likelihood", "coupling", "guidance")


@pytest.mark.parametrize(
    ("name", "group"),
    [
        (name, group)
        for name in options("experiment")
        for group in LEAVABLE
        if group in yaml.safe_load((conf_dir() / f"experiment/{name}.yaml").read_text())
    ],
)
def test_a_group_may_be_left_out_of_an_experiment_that_sets_keys_of_it(name: str, group: str) -> None:
    assert preflight("train", [f"experiment={name}"], check=False)[group]._target_
    config = preflight("train", [f"experiment={name}", f"~{group}"])
    build(config.model)
    assert config.model[{"likelihood": "density"}.get(group, group)] is None


@pytest.mark.parametrize(
    ("name", "group", "message"),
    [("cifar10/ddim", "sampler", "choose sampler=OPTION"), ("digits/r1_gan", "penalty", "choose penalty=OPTION")],
)
def test_a_group_that_a_model_needs_is_missed_though_an_experiment_sets_keys_of_it(
    name: str, group: str, message: str
) -> None:
    with pytest.raises(GenlabError, match=message):
        preflight("train", [f"experiment={name}", f"~{group}"])


@pytest.mark.parametrize("choice", ["~guidance", "guidance=classifier_free_interval", "guidance.w=2"])
def test_a_conditional_recipe_takes_another_guidance_or_none(choice: str) -> None:
    build(preflight("train", ["experiment=digits/ddpm_conditional", choice]).model)


def test_a_model_beats_the_default_network_and_the_command_line_beats_the_model() -> None:
    assert "generator" in preflight("train", ["model=dcgan"]).network
    assert preflight("train", ["model=ddpm"]).sampler._target_.endswith("Ancestral")
    assert preflight("train", ["model=ddpm", "sampler=ddim"]).sampler._target_.endswith("DDIM")
    config = preflight("train", ["experiment=digits/ddpm", "sampler=ddim", "sampler.steps=7", "optimizer.lr=0.5"])
    assert (config.sampler.steps, config.optimizer.lr) == (7, 0.5)


OWN = {
    "digits/ddpm": "ddim",
    "digits/dcgan": "truncation",
    "digits/vae": "ex_post",
    "digits/hvae": "temperature",
    "digits/glow": "tempered",
    "digits/transformer": "nucleus",
}


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("sampler", sorted(set(OWN.values())))
def test_a_sampler_of_another_family_is_refused_before_training(name: str, sampler: str) -> None:
    config = preflight("train", [f"experiment={name}", f"sampler={sampler}"])
    ladders = {"ex_post", "temperature"}  # which draw latents of VAEs of either kind
    if sampler == OWN[name] or {sampler, OWN[name]} == ladders:
        build(config.model)
    else:
        with pytest.raises(GenlabError, match="is of another family than"):
            build(config.model)


def test_a_sampler_for_a_model_that_takes_none_is_refused() -> None:
    with pytest.raises(GenlabError, match="vqvae takes no sampler"):
        preflight("train", ["experiment=digits/vqvae", "sampler=ddim"])


def test_the_deviation_of_the_vae_on_cifar10_is_the_published_weight_of_the_kl() -> None:
    """Squared errors in [0, 1], their mean over colours and sum over places, beside 0.024 times the KL."""
    head = build(preflight("train", ["experiment=cifar10/vae"]).model.head)
    x, mu = torch.rand(2, 2, 3, 5, 5)
    price = head.log_prob(2 * x - 1, 2 * x - 1) - head.log_prob(2 * x - 1, 2 * mu - 1)  # without its constant
    torch.testing.assert_close(0.024 * price, (x - mu).square().mean(1).sum((1, 2)))
