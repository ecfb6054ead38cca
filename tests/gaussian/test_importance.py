"""Importance sampling of times by the second moments of the loss."""

import subprocess
import sys
from collections import deque
from pathlib import Path

import torch
from torch import Tensor

from genlab.gaussian.times import LossSecondMoment

CPU = torch.device("cpu")


def profile(steps: int) -> Tensor:
    """Losses that fall by orders of magnitude with t, as those of the bound do."""
    return 1 / torch.arange(1, steps + 1).double() ** 2


def warm(steps: int, history: int = 10, uniform_prob: float = 0.001) -> LossSecondMoment:
    times = LossSecondMoment(steps, history, uniform_prob)
    t = torch.arange(1, steps + 1).repeat(history).float()
    times.observe(t, profile(steps)[t.long() - 1])
    return times


def test_uniform_until_every_step_has_its_history() -> None:
    times = LossSecondMoment(4, history=2)
    times.observe(torch.tensor([1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 1.0, 1.0]), torch.arange(9.0) + 1)
    assert times.probabilities().tolist() == [0.25] * 4
    assert times.correction(torch.tensor([1.0, 4.0])).tolist() == [1.0, 1.0]
    times.observe(torch.tensor([4.0]), torch.tensor([1.0]))
    assert times.probabilities().tolist() != [0.25] * 4


def test_probabilities_are_the_roots_of_the_second_moments_of_the_latest_losses() -> None:
    """Against a queue for each step, filled one loss after another, as the paper has it."""
    steps, history = 7, 3
    times, queues = LossSecondMoment(steps, history, 0.01), [deque[float](maxlen=history) for _ in range(steps)]
    generator = torch.Generator().manual_seed(0)
    for _ in range(12):
        t = torch.randint(1, steps + 1, (13,), generator=generator)
        losses = torch.rand(13, generator=generator)
        times.observe(t.float(), losses)
        for step, loss in zip(t.tolist(), losses.tolist(), strict=True):
            queues[step - 1].append(loss)
    assert all(len(queue) == history for queue in queues)
    root = torch.tensor([list(queue) for queue in queues], dtype=torch.float64).square().mean(1).sqrt()
    torch.testing.assert_close(times.probabilities(), 0.99 * root / root.sum() + 0.01 / steps)


def test_times_are_drawn_by_their_probabilities() -> None:
    times = warm(6)
    torch.manual_seed(0)
    t = times(200_000, CPU)
    assert t.dtype == torch.float32
    share = t.long().bincount(minlength=7)[1:] / len(t)
    torch.testing.assert_close(share.double(), times.probabilities(), rtol=0, atol=0.004)
    assert times.quantile(torch.tensor([0.0, 1.0])).tolist() == [1.0, 6.0]


def test_corrected_losses_are_unbiased_and_vary_less() -> None:
    times, losses = warm(50), profile(50)
    p = times.probabilities()
    corrected = times.correction(torch.arange(1, 51).double()) * losses
    torch.testing.assert_close((p * corrected).sum(), losses.mean())
    spread = (p * (corrected - losses.mean()) ** 2).sum() / losses.var(correction=0)
    assert spread < 0.01, "with L_t constant in time nothing but the uniform share is left"
    torch.manual_seed(0)
    t = times(100_000, CPU)
    torch.testing.assert_close((times.correction(t) * losses[t.long() - 1]).mean(), losses.mean(), rtol=1e-2, atol=0)


def test_its_state_is_part_of_a_checkpoint() -> None:
    times, other = warm(5, history=4), LossSecondMoment(5, history=4)
    other.load_state_dict(times.state_dict())
    for law in (times, other):
        law.observe(torch.tensor([3.0, 3.0]), torch.tensor([7.0, 8.0]))
    assert torch.equal(times.probabilities(), other.probabilities())
    assert torch.equal(times.losses, other.losses)


RANK = """
import sys, torch
from torch import distributed
from genlab.gaussian.times import LossSecondMoment
rank, folder = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
times = LossSecondMoment(4, history=2)
t, losses = torch.load(f"{folder}/batches.pt")
for k in range(len(t)):
    times.observe(t[k].chunk(2)[rank], losses[k].chunk(2)[rank])
torch.save(times.state_dict(), f"{folder}/rank{rank}.pt")
distributed.barrier()
distributed.destroy_process_group()
"""


def test_ranks_learn_from_the_losses_of_all(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    t, losses = torch.randint(1, 5, (5, 8), generator=generator).float(), torch.rand(5, 8, generator=generator)
    torch.save((t, losses), tmp_path / "batches.pt")
    ranks = [subprocess.Popen([sys.executable, "-c", RANK, str(rank), str(tmp_path)]) for rank in (0, 1)]
    assert [process.wait(60) for process in ranks] == [0, 0]
    alone = LossSecondMoment(4, history=2)
    for k in range(5):
        alone.observe(t[k], losses[k])
    for rank in (0, 1):
        state = torch.load(tmp_path / f"rank{rank}.pt")
        assert all(torch.equal(state[name], value) for name, value in alone.state_dict().items())
