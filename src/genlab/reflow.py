"""The second step of rectified flow: what a trained flow makes of its noise becomes the data of a straighter one."""

import hashlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genlab.errors import GenlabError
from genlab.files import place
from genlab.module import GenerativeModule
from genlab.noise import NoiseStream, key
from genlab.recorded import here
from genlab.run import SPACE, Run, plain
from genlab.scoring import load

Pairs = dict[str, Tensor]  # "eps", "x" (n, *shape) in model space and, of a conditional teacher, "y" (n,)


class Reflow:
    """The coupling (x̂, ε) in which x̂ is where the teacher's own sampler ends that begins at z = σ(t_max) ε.

    Liu et al. 2022, arXiv:2209.03003, section 2.1. `run` is the teacher's run directory; `pairs` of them are made once,
    when the first batch asks, and lie there under a name that depends on its checkpoint, its sampler and their number.
    x, ε of the batch are not used: random rows take their place. Raises GenlabError where the teacher is not finished,
    draws noise on its way, or does not end its path at pure noise.
    """

    def __init__(self, run: str, pairs: int, batch: int = 1000, weights: str = "ema", seed: int = 0):
        self.run, self.n, self.batch, self.weights, self.seed = Path(run), pairs, batch, weights, seed
        self.pairs: Pairs | None = None  # a student that is only sampled needs no teacher

    def __call__(self, x: Tensor, eps: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        if self.pairs is None:
            with torch.random.fork_rng():  # building the teacher must not move the random numbers of this batch
                self.pairs = self._load()
        x_hat, z, labels = self.pairs["x"], self.pairs["eps"], self.pairs.get("y")
        if x_hat.shape[1:] != x.shape[1:] or (y is not None and labels is None):
            raise GenlabError(
                f"the teacher {self.run} makes other data than these: {tuple(x_hat.shape[1:])}, "
                f"{'unlabelled' if labels is None else 'labelled'}"
            )
        index = torch.randint(len(x_hat), (len(x),))
        chosen = None if y is None or labels is None else labels[index].to(y.device)
        return x_hat[index].to(x), z[index].to(x), chosen

    def _load(self) -> Pairs:
        """The pairs from their file, which is made if there is none."""
        run = Run.existing(self.run)
        await_end(run)
        config = here(run.config)
        made_of = [run.checkpoint_digest, config["model"].get("sampler"), self.weights, self.seed, self.n]
        made_of += ["train rows"] if config["model"].get("prior") else []
        made_of += [guidance] if (guidance := config["model"].get("guidance")) else []
        name = hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest()[:12]
        path = run.path / f"pairs-{name}.pt"
        if not path.is_file():
            module, _ = load(run, config, self.weights, trust=False)
            parts = list(self._made(module))
            pairs = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
            # whole at once: another student of the same teacher may be making them too
            place(path, lambda file: torch.save(pairs, file), SPACE)
        return plain(path)

    @torch.no_grad()
    def _made(self, module: GenerativeModule) -> Iterator[Pairs]:
        denoiser = getattr(module, "denoiser", None)
        if denoiser is None or not denoiser.path.vanishing:
            raise GenlabError(f"the teacher {self.run} is no flow on the path Linear: its noise is not where it ends")
        teacher: Any = module
        for start in range(0, self.n, self.batch):
            n = min(self.batch, self.n - start)
            labels = NoiseStream(key(self.seed, "reflow labels"), start, module.device)
            y = module.labels(labels, n, None)
            noise = NoiseStream(key(self.seed, "reflow"), start, module.device)
            eps = teacher.prior.draw(noise, (n, *module.shape))
            way = teacher.transport(noise, n, y, eps)
            if not way.x.isfinite().all():
                raise GenlabError(f"the teacher {self.run} makes numbers that are not finite")
            part = {"eps": eps.float().cpu(), "x": way.x.cpu()}
            yield part if y is None else part | {"y": y.cpu()}


def await_end(run: Run) -> None:
    """Wait while another process trains the run; raises GenlabError where nobody does and it is not finished."""
    while run.status.get("state") != "finished":
        if not run.locked:
            state = run.status.get("state", "not trained")
            raise GenlabError(f"the teacher {run.path} is {state}: train it to its end first (docs/reflow.md)")
        time.sleep(1)
