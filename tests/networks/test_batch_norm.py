"""Batch norm of two ranks is that of their batches together."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from genlab.networks.batch_norm import SyncBatchNorm, synchronize

RANK = """
import sys, torch
from torch import distributed, nn
from genlab.distributed import total
from genlab.networks.batch_norm import synchronize
rank, folder = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
x, state = torch.load(f"{folder}/data.pt")
norm = (nn.BatchNorm2d if x.ndim == 4 else nn.BatchNorm1d)(3).double()
norm.load_state_dict(state)
synchronize(norm)
x = x[rank::2].requires_grad_()
y = norm(x)
(slope,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)  # of everybody's y, by this rank's x
(slope.square().sum() / 2).backward()  # ranks average their gradients
torch.save((y, slope, x.grad, norm.weight.grad, norm.state_dict(), total(torch.tensor([rank + 1.0]))), f"{folder}/{rank}.pt")
distributed.barrier()
distributed.destroy_process_group()
"""


@pytest.mark.parametrize(("kind", "shape"), [(nn.BatchNorm1d, (8, 3)), (nn.BatchNorm2d, (8, 3, 4, 4))])
def test_values_slopes_and_second_derivatives_are_those_of_the_whole_batch(
    kind: type[nn.BatchNorm1d], shape: tuple[int, ...], tmp_path: Path
) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64, generator=generator) * 2 + 1
    norm = kind(3).double()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, -2.0, 0.5]))
    torch.save((x, norm.state_dict()), tmp_path / "data.pt")
    ranks = [subprocess.Popen([sys.executable, "-c", RANK, str(rank), str(tmp_path)]) for rank in (0, 1)]
    assert [process.wait(60) for process in ranks] == [0, 0]
    x.requires_grad_()
    y = norm(x)
    (slope,) = torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)
    (slope.square().sum() / 2).backward()
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    for k, (own_y, own_slope, own_grad, _, state, both) in enumerate(found):
        torch.testing.assert_close(own_y, y[k::2])
        torch.testing.assert_close(own_slope, slope[k::2])
        torch.testing.assert_close(own_grad, x.grad[k::2])
        for name, value in norm.state_dict().items():
            torch.testing.assert_close(state[name], value)
        assert both.item() == 3
    torch.testing.assert_close(found[0][3] + found[1][3], norm.weight.grad)


def test_one_rank_changes_nothing_and_weights_stay_where_they_are() -> None:
    plain = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    names, x = list(plain.state_dict()), torch.randn(4, 1, 5, 5)
    y = plain(x)
    synchronize(plain)
    assert isinstance(plain[1], SyncBatchNorm)
    assert list(plain.state_dict()) == names
    assert torch.equal(plain(x), y)
    assert torch.equal(plain.eval()(x), plain(x))
