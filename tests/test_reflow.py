"""Rectified flow's second step, on a flow whose samples are known, and end to end in the plane."""

from pathlib import Path
from typing import Any

import pytest
import torch

from genlab.config import preflight, run_dir
from genlab.errors import GenlabError
from genlab.evaluation.planar import PathEnergy, w2_squared
from genlab.instantiation import build
from genlab.module import GenerativeModule
from genlab.noise import NoiseStream
from genlab.reflow import Reflow
from genlab.run import Run
from genlab.scoring import load
from genlab.training import train

QUICK = ["evaluation.n=0", "logger=none", "trainer.validate_every=0", "sampler.steps=10"]


def trained(*overrides: str, images: int = 10_240) -> Path:
    config = preflight("train", [*overrides, *QUICK, f"trainer.max_images={images}"])
    train(config, Path(run_dir(config)))
    return Path(run_dir(config))


@pytest.fixture
def teacher(outputs: Path) -> Path:
    return trained("experiment=planar/cfm")


def pairs_of(run: Path) -> list[Path]:
    return sorted(run.glob("pairs-*.pt"))


def test_pairs_are_the_noise_and_what_the_teachers_sampler_makes_of_it(teacher: Path) -> None:
    coupling = Reflow(str(teacher), pairs=300, batch=128)
    y = torch.arange(64)
    torch.manual_seed(0)
    x_hat, eps, labels = coupling(torch.zeros(64, 2), torch.zeros(64, 2), None)
    assert labels is None
    module, _ = load(Run(teacher), Run(teacher).config, "ema", trust=False)
    x = eps.clone()
    denoiser: Any = module.get_submodule("denoiser")
    with torch.no_grad():
        for i in range(10):  # Euler from t = 1 to 0 by hand
            t = torch.tensor(1 - i / 10, dtype=torch.float64)
            x = x - 0.1 * (x - denoiser(x, t)) / t.float()
    torch.testing.assert_close(x_hat, x, rtol=1e-4, atol=1e-4)
    torch.manual_seed(0)
    again = Reflow(str(teacher), pairs=300, batch=300)(torch.ones(64, 2), torch.ones(64, 2), None)
    assert torch.equal(again[0], x_hat)
    with pytest.raises(GenlabError, match="unlabelled"):
        coupling(torch.zeros(64, 2), torch.zeros(64, 2), y)
    with pytest.raises(GenlabError, match="other data"):
        coupling(torch.zeros(64, 3), torch.zeros(64, 3), None)


def test_pairs_are_kept_until_the_teacher_its_weights_or_their_number_change(teacher: Path) -> None:
    x = torch.zeros(4, 2)
    Reflow(str(teacher), pairs=20)(x, x, None)
    (first,) = pairs_of(teacher)
    before = first.stat().st_mtime_ns
    Reflow(str(teacher), pairs=20)(x, x, None)
    assert pairs_of(teacher) == [first]
    assert first.stat().st_mtime_ns == before
    Reflow(str(teacher), pairs=21)(x, x, None)
    Reflow(str(teacher), pairs=20, weights="raw")(x, x, None)
    assert len(pairs_of(teacher)) == 3
    trained("experiment=planar/cfm", images=20_480)  # the same run goes on
    Reflow(str(teacher), pairs=20)(x, x, None)
    assert len(pairs_of(teacher)) == 4


def test_a_student_finds_its_teacher_and_seeds_stay_one_group(outputs: Path) -> None:
    for seed in (0, 3):
        teacher = preflight("train", ["experiment=planar/cfm", f"seed={seed}"])
        student = preflight("train", ["experiment=planar/rectified_flow", f"seed={seed}"])
        assert student.coupling.run == run_dir(teacher)
    zero, three = (preflight("train", ["experiment=planar/rectified_flow", f"seed={s}"]) for s in (0, 3))
    assert run_dir(zero).removesuffix("-s0") == run_dir(three).removesuffix("-s3")
    assert run_dir(zero) != run_dir(preflight("train", ["experiment=planar/rectified_flow", "optimizer.lr=0.5"]))


def test_a_teacher_that_is_missing_or_unfinished_is_refused(teacher: Path) -> None:
    x = torch.zeros(4, 2)
    with pytest.raises(GenlabError, match="not a run directory"):
        Reflow(str(teacher.parent / "nowhere"), pairs=20)(x, x, None)
    Run(teacher).write_status("preempted", 512, 1024)
    with pytest.raises(GenlabError, match="preempted: train it to its end"):
        Reflow(str(teacher), pairs=20)(x, x, None)


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (["experiment=planar/cfm", "sampler=ancestral"], "draws noise"),
        (["experiment=planar/score_sde_vp", "sampler=euler", "trainer.batch=512"], "no flow on the path Linear"),
        (["experiment=planar/gan", "trainer.batch=512"], "no flow on the path Linear"),
    ],
)
def test_a_teacher_that_is_no_deterministic_flow_is_refused(overrides: list[str], why: str, outputs: Path) -> None:
    quick = [o for o in QUICK if "gan" not in overrides[0] or not o.startswith("sampler")]
    config = preflight("train", [*overrides, *quick, "trainer.max_images=1024"])
    train(config, Path(run_dir(config)))
    with pytest.raises(GenlabError, match=why):
        Reflow(run_dir(config), pairs=20)(torch.zeros(4, 2), torch.zeros(4, 2), None)


@pytest.mark.slow
def test_the_second_flow_is_straight_and_one_step_samples_it(outputs: Path) -> None:
    first = trained("experiment=planar/cfm", "sampler.steps=50", images=1_024_000)
    second = trained("experiment=planar/rectified_flow", "sampler.steps=50", images=1_024_000)

    def scored(run: Path) -> tuple[float, float]:
        """W₂ after one Euler step, and straightness over fifty."""
        config = Run(run).config
        test = build(config["data"]["source"]).split("test").x[:2000]
        module, _ = load(Run(run), config, "ema", trust=False)
        straightness, _ = PathEnergy(2000)(module, test, NoiseStream(0))["straightness"]
        config["model"]["sampler"]["steps"] = 1
        quick: GenerativeModule = load(Run(run), config, "ema", trust=False)[0]
        return w2_squared(test, quick.generate(NoiseStream(0), 2000)) ** 0.5, straightness

    (w2_first, bent), (w2_second, straight) = scored(first), scored(second)
    print(w2_first, w2_second, bent, straight)
    assert w2_second < w2_first / 3
    assert straight < bent / 5


def test_a_teacher_between_two_data_sets_makes_more_pairs_than_it_has_test_rows(outputs: Path) -> None:
    teacher = trained("experiment=planar/cfm", "data=planar/moons_to_eight_gaussians", "data.prior.source.n_test=2000")
    x = torch.zeros(64, 2)
    _, eps, _ = Reflow(str(teacher), pairs=2500)(x, x, None)
    prior = build(Run(teacher).config["model"]["prior"])
    assert (eps[:, None] == prior.train).all(2).any(1).all()
