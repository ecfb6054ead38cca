"""Autoencoders between data and models: what they give back, whose they are, and which runs are none."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

from genlab import first_stage
from genlab.averaging import Constant
from genlab.codec import Vectors
from genlab.config import preflight, run_dir
from genlab.data.digits import Digits
from genlab.errors import GenlabError
from genlab.evaluate import Options, rescore
from genlab.first_stage import Latent
from genlab.folders import conf_dir
from genlab.gaussian.denoiser import Denoiser, Time
from genlab.gaussian.grids import Trailing
from genlab.gaussian.parametrization import X
from genlab.gaussian.path import Linear
from genlab.gaussian.samplers import Heun
from genlab.gaussian.times import Uniform
from genlab.gaussian.weights import Unit
from genlab.instantiation import build
from genlab.noise import NoiseStream
from genlab.optimization import Optimization
from genlab.paradigms.diffusion import Diffusion
from genlab.paradigms.vqvae import VQVAE
from genlab.run import Run
from genlab.scoring import load
from genlab.training import train

SMALL = ["trainer.max_images=64", "trainer.batch=16", "evaluation.n=0", "logger=none", "network.width=8"]
MODEL = ["experiment=digits/ddpm", "network.width=8", "network.attention=[]", "sampler.threshold=null", "logger=none"]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A VQ-VAE of a few batches."""
    folder = tmp_path_factory.mktemp("first") / "hash-s0"
    train(preflight("train", ["experiment=digits/vqvae", *SMALL]), folder)
    return folder


@pytest.fixture
def run(trained: Path, outputs: Path) -> Path:
    """A copy of it to spoil."""
    return Path(shutil.copytree(trained, outputs / "first"))


def composed(run: Path, *more: str, codec: str = "latent") -> Any:
    return preflight("train", [*MODEL, f"codec={codec}", f"codec.run={run}", *more])


@pytest.mark.parametrize("codec", ["latent", "codes"])
def test_what_comes_back_is_the_autoencoders_own_reconstruction(codec: str, run: Path) -> None:
    ours = build(composed(run, codec=codec).codec)
    module: Any = load(Run(run), Run(run).config, "ema", trust=False)[0]
    x = Digits().split("test").x[:20]
    z = ours.encode(x)
    assert z.shape[1:] == tuple(ours.frozen.module.latent_shape)[codec == "codes" :]
    with torch.no_grad():
        assert torch.equal(ours.decode(z), module.codec.decode(module.reconstruct(module.codec.encode(x))))
        if codec == "codes":
            assert torch.equal(z, module.codes(module.codec.encode(x)))
            assert (z.dtype, ours.size) == (torch.int64, 64)
    assert ours.log_volume is None


def test_an_autoencoder_is_scored_by_all_that_it_makes_of_held_out_images(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rFID: 0 where nothing is lost, a thousand times more for an untrained one, the same in any batches."""
    small = ["evaluation.features.images=500", "evaluation.n=50"]
    options = Options()
    (row,) = rescore(run, ["frechet"], options, small)
    assert row["metric"] == "reconstruction_fd_digits"
    assert (row["protocol"]["of"], row["protocol"]["n_fake"]) == ("reconstructions of test", 360)
    assert not row["references"]
    (again,) = rescore(run, ["frechet"], options, [*small, "evaluation.batch=77"])
    assert again["value"] == pytest.approx(row["value"], rel=1e-5)
    monkeypatch.setattr(VQVAE, "reconstruct", lambda self, x, y=None: x)
    (nothing,) = rescore(run, ["frechet"], options, small)
    assert abs(nothing["value"]) < row["value"] / 1000
    monkeypatch.setattr(VQVAE, "reconstruct", lambda self, x, y=None: x * torch.nan)
    with pytest.raises(GenlabError, match="nan or inf"):
        rescore(run, ["frechet"], options, small)
    with pytest.raises(GenlabError, match="VQVAE has no likelihood"):
        rescore(run, ["likelihood"], options, small)


def test_latents_have_unit_deviation_which_is_measured_once(run: Path) -> None:
    codec = build(composed(run).codec)
    assert codec.encode(Digits().split("train").x).std().item() == pytest.approx(1, abs=1e-4)
    (record,) = run.glob("latents-*.json")
    record.write_text(json.dumps({**json.loads(record.read_text()), "deviation": 3.0}))
    again = build(composed(run).codec)
    assert again.scale.item() == 3
    torch.testing.assert_close(
        again.decode(codec.encode(Digits().split("test").x[:9]) * codec.scale / 3),
        codec.decode(codec.encode(Digits().split("test").x[:9])),
    )


def test_it_is_measured_in_a_directory_that_cannot_be_written_too(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object) -> None:
        raise GenlabError("cannot write")

    expected = build(composed(run).codec).scale
    for record in run.glob("latents-*.json"):
        record.unlink()
    monkeypatch.setattr("genlab.first_stage.write_atomically", forbidden)
    assert torch.equal(build(composed(run).codec).scale, expected)
    assert not list(run.glob("latents-*.json"))


def test_a_model_neither_trains_nor_saves_it_and_is_resumed_with_the_scale_that_it_began_with(
    run: Path, outputs: Path
) -> None:
    small = [*SMALL[:3], "trainer.checkpoint_every=32", "sampler.steps=2"]
    train(composed(run, *small), outputs / "second")
    state = Run(outputs / "second").load_checkpoint()
    assert state is not None
    names = [name for name in state["state_dict"] if name.startswith("codec")]
    assert names == ["codec.scale"]
    assert state["state_dict"]["denoiser.network.first.weight"].shape[1] == 16, "it sees latents"
    module = build(composed(run).model)
    theirs = {id(p) for p in module.codec.frozen.module.parameters()}
    assert theirs
    assert not theirs & {id(p) for p in module.parameters()}
    (record,) = run.glob("latents-*.json")
    record.write_text(json.dumps({"deviation": 3.0}))
    resumed: Any = load(Run(outputs / "second"), Run(outputs / "second").config, "ema", trust=False)[0]
    assert torch.equal(resumed.codec.scale, state["state_dict"]["codec.scale"])
    assert resumed.generate(NoiseStream(0), 3).shape == (3, 1, 8, 8)


def test_the_run_is_known_by_the_weights_and_not_by_where_they_lie(run: Path, outputs: Path) -> None:
    here = run_dir(composed(run))
    assert run_dir(composed(Path(shutil.move(run, outputs / "elsewhere")))) == here
    assert run_dir(preflight("train", MODEL)) != here
    train(preflight("train", ["experiment=digits/vqvae", *SMALL, "seed=1"]), outputs / "other")
    assert run_dir(composed(outputs / "other")) != here


def spoilt(run: Path, how: str) -> None:
    """Make the run no autoencoder to stand on."""
    config = yaml.safe_load((run / "config.yaml").read_text())
    status = json.loads((run / "status.json").read_text())
    if how == "gone":
        shutil.rmtree(run)
    elif how == "running":
        (run / "status.json").write_text(json.dumps({**status, "state": "running"}))
    elif how == "changed":
        manifest = {"000000080.pt": "0" * 64, **json.loads((run / "checkpoints" / "manifest.json").read_text())}
        (run / "checkpoints" / "manifest.json").write_text(json.dumps(manifest))
    elif how == "foreign":
        config["model"]["encoder"] = {"_target_": "os.system", "command": f"touch {run / 'canary'}"}
    elif how == "nested":
        config["model"]["codec"]["run"] = str(run)
    elif how == "damaged":
        path = run / "checkpoints" / "000000064.pt"
        path.write_bytes(path.read_bytes()[:-7])
    if run.exists():
        (run / "config.yaml").write_text(yaml.safe_dump(config))


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("gone", "is no run directory"),
        ("running", "is running: train it to its end first"),
        ("changed", "has other weights than it had"),
        ("foreign", r"os\.system is not genlab's own"),
        ("nested", "stands on another run itself"),
        ("damaged", "no checkpoint in .* is intact"),
    ],
)
def test_a_run_that_cannot_be_stood_on_any_more_is_one_line(how: str, message: str, run: Path) -> None:
    recorded = yaml.safe_load(yaml.safe_dump(json.loads(json.dumps(dict(composed(run).codec), default=list))))
    spoilt(run, how)
    with pytest.raises(GenlabError, match=message) as caught:
        build(recorded)
    assert "\n" not in str(caught.value)
    assert not (run / "canary").exists()


def test_what_is_no_autoencoder_is_refused_before_anything_is_built(outputs: Path, run: Path) -> None:
    with pytest.raises(GenlabError, match=r"codec\.run=RUN is missing"):
        preflight("train", [*MODEL, "codec=latent"])
    train(preflight("train", [*MODEL[:3], *SMALL[:4], "sampler.steps=1"]), outputs / "ddpm")
    with pytest.raises(GenlabError, match="no autoencoder for this codec: its model has no latent_shape"):
        composed(outputs / "ddpm")
    with pytest.raises(GenlabError, match=r"no autoencoder for this codec: its model has no .*"):
        composed(outputs / "ddpm", codec="codes")


def test_data_of_another_shape_and_clipped_latents_are_refused(run: Path) -> None:
    with pytest.raises(GenlabError, match=r"is of \(1, 8, 8\), and the data \(3, 8, 8\)"):
        build(composed(run).codec).encode(torch.zeros(2, 3, 8, 8, dtype=torch.uint8))
    config = preflight("train", [*MODEL[:3], "codec=latent", f"codec.run={run}"])
    with pytest.raises(GenlabError, match="no bounds to clip"):
        build(config.model)


MEAN, COVARIANCE = torch.tensor([1.0, -2.0]), torch.tensor([[2.0, 0.6], [0.6, 0.5]])
ENCODER = torch.tensor([[0.5, 2.0], [-1.5, 1.0]])


class Exact(torch.nn.Module):
    """E[z | z_t] on the path Linear of z ~ N(m, S)."""

    def __init__(self, mean: torch.Tensor, covariance: torch.Tensor):
        super().__init__()
        self.mean, self.covariance = mean, covariance

    def forward(self, x: torch.Tensor, t: torch.Tensor, y: None = None) -> torch.Tensor:
        p = Linear()(t, 2)
        noisy = p.alpha[:, :, None] ** 2 * self.covariance + p.sigma[:, :, None] ** 2 * torch.eye(2)
        gain = p.alpha[:, :, None] * self.covariance @ torch.linalg.inv(noisy)
        return self.mean + (gain @ (x - p.alpha * self.mean)[..., None])[..., 0]


@torch.no_grad()
def test_a_model_of_linear_latents_has_the_law_of_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """x ~ N(m, S), z = A x/s: the best denoiser of z is known, and A⁻¹ of its samples is x again."""
    scale = 1.7
    linear = SimpleNamespace(
        codec=Vectors(),
        shape=(2,),
        latent_shape=(2,),
        encode=lambda x: x @ ENCODER.T,
        render=lambda z: z @ torch.linalg.inv(ENCODER).T,
    )
    frozen = SimpleNamespace(module=linear, on=lambda device: linear, known=lambda x: x, deviation=lambda: scale)
    monkeypatch.setattr(first_stage, "Frozen", lambda *_: frozen)
    codec = Latent("run", "weights", (2,))
    latent = Exact(ENCODER @ MEAN / scale, ENCODER @ COVARIANCE @ ENCODER.T / scale**2)
    module = Diffusion(
        denoiser=Denoiser(latent, Linear(), X(), Time(1.0)),
        times=Uniform(0.0, 1.0),
        weight=Unit(),
        sampler=Heun(40, Trailing()),
        label_drop=0.0,
        codec=codec,
        shape=(2,),
        optimizer=Optimization(torch.optim.SGD, 0.1),
        averaging=Constant(0.9),
    )
    n = 40_000
    x = module.generate(NoiseStream(0), n)
    deviation = COVARIANCE.diag().sqrt()
    assert ((x.mean(0) - MEAN).abs() < 5 * deviation / n**0.5).all()
    assert ((x.T.cov() - COVARIANCE).abs() < 5 * torch.outer(deviation, deviation) * (2 / n) ** 0.5 + 0.01).all()
    assert module.likelihood is None
    with pytest.raises(NotImplementedError, match="no bijection"):
        module.nats(x[:2])


def test_networks_take_their_shape_from_model_space() -> None:
    """Or a network would be built for images where a model sees latents."""
    for path in (conf_dir() / "network").glob("*.yaml"):
        assert "${data.shape" not in path.read_text(), path
