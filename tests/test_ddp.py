"""Two processes on the CPU are one process with the same global batch."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from genlab.config import preflight
from genlab.evaluate import Options, rescore
from genlab.instantiation import build
from genlab.run import Run

FAMILIES = Path(__file__).parent / "ddp_families_probe.py"
OVERRIDES = ["experiment=digits/ddpm", "trainer.batch=32", "sampler.steps=2", "evaluation.n=8", "logger.mode=offline"]


@pytest.mark.slow
def test_two_ranks_equal_one_process_and_write_one_record(outputs: Path) -> None:
    probe = Path(__file__).parent / "ddp_probe.py"
    overrides = [*OVERRIDES, "trainer=ddp", "trainer.max_images=96", "trainer.batch=32", "trainer.accelerator=cpu"]
    overrides += ["trainer.evaluate_every=48", "evaluation.batch=3", "evaluation.likelihood=false"]
    environment = {**os.environ, "PROBE": str(outputs), "GENLAB_OUTPUTS": str(outputs), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(probe), *overrides, f"outputs={outputs}"]
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    ranks = [torch.load(outputs / f"drawn{rank}.pt") for rank in (0, 1)]
    grads = [torch.load(outputs / f"grads{rank}.pt") for rank in (0, 1)]
    ends = [torch.load(outputs / f"end{rank}.pt") for rank in (0, 1)]

    assert ranks[0]["x"].shape == (16, 1, 8, 8), "the batch is that of all ranks together"
    assert not torch.equal(ranks[0]["eps"], ranks[1]["eps"]), "each rank has noise of its own"
    assert not torch.equal(ranks[0]["t"], ranks[1]["t"])

    module = build(preflight("train", overrides).model)
    module.load_state_dict(ranks[0]["weights"])
    x, eps, t = (torch.cat([ranks[0][k], ranks[1][k]]) for k in ("x", "eps", "t"))
    module.losses(x, eps, t, None)["loss"].mean().backward()
    for name, p in module.named_parameters():
        assert torch.equal(grads[0][name], grads[1][name]), name
        torch.testing.assert_close(grads[0][name], p.grad, rtol=1e-4, atol=1e-6, msg=name)
    for name in ends[0]:
        assert torch.equal(ends[0][name], ends[1][name]), name

    (status,) = outputs.glob("digits/ddpm/*/status.json")
    run = Run(status.parent)
    assert run.status["state"] == "finished"
    assert len((run.path / "history.jsonl").read_text().splitlines()) == 3
    assert len(list(run.path.glob("wandb/offline-run-*"))) == 1, "one W&B run for both ranks"

    rows = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    shared = [row for row in rows if row["metric"] == "fd_digits"][-1]  # the best checkpoint may stand before the last
    assert shared["protocol"]["n_fake"] == 8
    assert shared["protocol"]["nfe"] == 2, "counted on both ranks, of the samples of both"
    (alone,) = [row for row in rescore(run.path, ["frechet"], Options(), []) if row["metric"] == "fd_digits"]
    assert alone["value"] == pytest.approx(shared["value"], rel=1e-5), "two ranks draw and score what one does"
    curve = [json.loads(line) for line in (run.path / "history.jsonl").read_text().splitlines()]
    assert sum("eval/fd_digits" in row for row in curve) == 2, "scored during training, by both ranks together"


@pytest.mark.slow
def test_weights_in_parts_learn_as_whole_ones_do(outputs: Path) -> None:
    """trainer=fsdp: checkpoints, averages, moments, validation, pictures and scores are those of trainer=ddp."""
    overrides = [*OVERRIDES, "experiment=digits/dit", "optimizer.clip_norm=0.5", "trainer.accumulate=2", "logger=none"]
    overrides += ["trainer.max_images=96", "trainer.accelerator=cpu", "evaluation.likelihood=false"]
    overrides += [f"trainer.{what}_every=48" for what in ("evaluate", "validate", "sample", "checkpoint", "log")]
    runs = []
    for strategy in ("ddp", "fsdp"):
        folder = outputs / strategy
        command = [sys.executable, "-m", "genlab.train", *overrides, f"trainer={strategy}", f"outputs={folder}"]
        environment = {**os.environ, "GENLAB_OUTPUTS": str(outputs), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stderr
        (status,) = folder.glob("digits/dit/*/status.json")
        runs.append(Run(status.parent))
    for which, more in (("last", ("optimizers", "callbacks")), ("best", ())):
        theirs, ours = (run.load_checkpoint(which) for run in runs)
        assert ours is not None
        assert theirs is not None
        for part in ("state_dict", "averages", "best", "images_seen", *more):
            assert_close(ours[part], theirs[part], part)
    for name in ("history.jsonl", "metrics.jsonl"):
        theirs, ours = ([json.loads(row) for row in (run.path / name).read_text().splitlines()] for run in runs)
        assert len(ours) == len(theirs)
        for row, other in zip(ours, theirs, strict=True):
            timed = row.get("metric") in ("ms_per_sample", "train_images_per_second")
            kept = [] if timed else [k for k, v in row.items() if isinstance(v, float) and "second" not in k]
            assert_close({k: row[k] for k in kept}, {k: other[k] for k in kept}, name)
    theirs, ours = (sorted(path.name for path in run.samples.iterdir()) for run in runs)
    assert ours == theirs


def assert_close(ours: Any, theirs: Any, where: str) -> None:
    """To float32's tolerance, all the way down."""
    if isinstance(ours, torch.Tensor | float):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5, equal_nan=True, msg=lambda m: f"{where}: {m}")
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key in ours:
            assert_close(ours[key], theirs[key], f"{where}/{key}")
    elif isinstance(ours, list):
        for i, (x, y) in enumerate(zip(ours, theirs, strict=True)):
            assert_close(x, y, f"{where}/{i}")
    else:
        assert ours == theirs, where


def alone_and_together(outputs: Path, which: str) -> None:
    """The families of a list trained by one process, in outputs/alone, and by two ranks, in outputs/together."""
    plain = {name: value for name, value in os.environ.items() if name not in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE")}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    plain |= {"GENLAB_OUTPUTS": str(outputs), "OMP_NUM_THREADS": "1"}
    ranks = [{"LOCAL_RANK": str(rank), "NODE_RANK": "0", "WORLD_SIZE": "2", **meeting} for rank in (0, 1)]
    jobs = [("alone", "1", {}), *(("together", "2", rank) for rank in ranks)]
    running = [
        subprocess.Popen(
            [sys.executable, str(FAMILIES), str(outputs / where), n, which], env=plain | more, stderr=subprocess.PIPE
        )
        for where, n, more in jobs
    ]
    for process in running:
        _, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr.decode()


def apart(outputs: Path, name: str) -> list[str]:
    """Which tensors of a family differ between the two."""
    one, two = (Run(outputs / where / name).load_checkpoint() for where in ("alone", "together"))
    assert one is not None
    assert two is not None
    assert one["images_seen"] == two["images_seen"] == 128
    found = []
    for own, theirs in ((one["state_dict"], two["state_dict"]), (one["averages"]["ema"], two["averages"]["ema"])):
        pairs = {k: (own[k].double(), theirs[k].double()) for k in own}
        off = {k: (a - b).abs().max() / a.abs().max().clip(1e-3) for k, (a, b) in pairs.items()}
        found += [k for k, error in off.items() if error > 1e-4]
    return found


@pytest.mark.slow
def test_two_ranks_train_gans_as_one_process_does(outputs: Path) -> None:
    """Both players' weights, running statistics, ADA's p and LeCam's means after eight batches, given the same latents.

    Batch norm is over both ranks when it is asked for, and else over each rank's own half: then they end elsewhere.
    """
    alone_and_together(outputs, "gans")
    for name in ("dcgan", "wgan_gp", "norms"):
        assert bool(apart(outputs, name)) == (name == "norms"), (name, apart(outputs, name))
    state = Run(outputs / "together" / "dcgan").load_checkpoint()
    assert state is not None
    assert state["state_dict"]["critic_augment.p"].item() == pytest.approx(128e-9), "images of both ranks are counted"
    assert state["state_dict"]["penalty.terms.lecam.means"].abs().min() > 0


@pytest.mark.slow
def test_ranks_score_the_running_statistics_of_the_checkpoint(outputs: Path) -> None:
    """Batch norm of each rank's own has other statistics on each."""
    overrides = ["experiment=digits/dcgan", "trainer=ddp", "trainer.accelerator=cpu", "trainer.batch=32", "logger=none"]
    overrides += ["trainer.max_images=96", "trainer.evaluate_every=0", "evaluation.n=8", "evaluation.batch=3"]
    environment = {**os.environ, "GENLAB_OUTPUTS": str(outputs), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "genlab.train", *overrides, f"outputs={outputs}"]
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    (status,) = outputs.glob("digits/dcgan/*/status.json")
    rows = map(json.loads, (status.parent / "metrics.jsonl").read_text().splitlines())
    (together,) = [row for row in rows if row["metric"] == "fd_digits"]
    (alone,) = [row for row in rescore(status.parent, ["frechet"], Options(), []) if row["metric"] == "fd_digits"]
    assert together["value"] == pytest.approx(alone["value"], rel=1e-5)


@pytest.mark.slow
def test_two_ranks_train_the_other_families_as_one_process_does(outputs: Path) -> None:
    """Given the same noise of posteriors and of dequantization."""
    alone_and_together(outputs, "others")
    for name in ("vae", "hvae", "glow", "transformer"):
        assert apart(outputs, name) == [], name


@pytest.mark.slow
def test_two_nodes_of_torchrun_are_one_run(outputs: Path) -> None:
    """Each node has a rank that is the first of its own, and only one is the first of all."""
    overrides = [*OVERRIDES, "trainer=ddp", "trainer.devices=1", "trainer.num_nodes=2", "trainer.accelerator=cpu"]
    overrides += ["trainer.max_images=96", "evaluation.likelihood=false", "logger=none", f"outputs={outputs}"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = ["--master-addr=127.0.0.1", f"--master-port={free.getsockname()[1]}"]
    environment = {**os.environ, "GENLAB_OUTPUTS": str(outputs), "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", *meeting]
    nodes = [
        subprocess.Popen(
            [*torchrun, f"--node-rank={node}", "-m", "genlab.train", *overrides],
            env=environment,
            stderr=subprocess.PIPE,
        )
        for node in (0, 1)
    ]
    for node in nodes:
        _, stderr = node.communicate(timeout=180)
        assert node.returncode == 0, stderr.decode()
    (status,) = outputs.glob("digits/ddpm/*/status.json")
    run = Run(status.parent)
    assert (run.status["state"], run.status["images_seen"]) == ("finished", 96)
    assert len((run.path / "environment.jsonl").read_text().splitlines()) == 1
    assert [json.loads(row)["metric"] for row in (run.path / "metrics.jsonl").read_text().splitlines()].count(
        "fd_digits"
    ) == 1
    state = run.load_checkpoint()
    assert state is not None
    assert state["conditions"]["devices"] == 2
