"""Weights that are split over ranks: what a network computes, learns and remembers is what it does whole."""

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor

from genlab.config import preflight
from genlab.distributed import leave
from genlab.errors import GenlabError
from genlab.instantiation import build
from genlab.sharding import divided, full, local, shard, whole
from genlab.training import train

RECIPES = ("dit", "ddpm", "iddpm", "edm", "score_sde_vp", "ncsnv2", "flow_matching", "ddpm_conditional")


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DeviceMesh]:
    """One rank, of which everything that happens to many can be asked."""
    meeting = tmp_path_factory.mktemp("group") / "meeting"
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    leave(True)  # unless a run that was refused has left it


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_network_of_a_path_learns_the_same_when_it_is_split(recipe: str, mesh: DeviceMesh) -> None:
    """Loss, gradients and an Adam step, of blocks that are gathered one by one."""
    split = build(preflight("train", [f"experiment=digits/{recipe}"]).model)
    alone = deepcopy(split)
    for name in split.averaged:
        shard(split.get_submodule(name), mesh)
    assert all(isinstance(p, DTensor) for p in split.parameters() if p.requires_grad), "an optimizer takes no mixture"
    x = torch.randn(8, *split.shape, generator=torch.Generator().manual_seed(1)).clip(-1, 1)
    y = torch.arange(8) if split.classes else None
    found = []
    for module in (alone, split):
        optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
        for _ in range(2):  # the first makes output layers of zeros pass gradients on
            torch.manual_seed(0)
            optimizer.zero_grad()
            loss = module.loss(x, y)["loss"]
            loss.backward()
            optimizer.step()
        found.append((loss, {name: full(p.grad) for name, p in module.named_parameters() if p.grad is not None}))
    (loss, grads), (other, others) = found
    torch.testing.assert_close(other, loss)
    assert grads.keys() == others.keys()
    for name, grad in grads.items():
        torch.testing.assert_close(others[name], grad, rtol=1e-4, atol=1e-6, msg=name)
    for name, value in whole(split.state_dict(), keep=True).items():
        torch.testing.assert_close(value, alone.state_dict()[name], rtol=1e-4, atol=1e-5, msg=name)


def test_states_are_put_together_and_divided_again(mesh: DeviceMesh) -> None:
    network = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    shard(network, mesh)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    network(torch.randn(5, 3)).square().sum().backward()
    optimizer.step()
    state = whole(optimizer.state_dict(), keep=True)
    moments = state["state"][0]["exp_avg"]
    assert type(moments) is torch.Tensor
    assert moments.shape == (4, 3)
    assert whole({"weights": [network[0].weight], "n": 3}, keep=False) == {"weights": [None], "n": 3}
    again = torch.optim.Adam(network.parameters(), lr=0.1)
    again.load_state_dict(divided(state, again))
    for before, after in zip(optimizer.state.values(), again.state.values(), strict=True):
        assert isinstance(after["exp_avg"], DTensor)
        assert torch.equal(local(before["exp_avg"]), local(after["exp_avg"]))
        assert torch.equal(before["step"], after["step"])
    network(torch.randn(5, 3)).square().sum().backward()
    again.step()  # takes them as its own


@pytest.mark.parametrize("family", ["vae", "dcgan"])
def test_who_calls_parts_of_its_networks_is_not_split(family: str, outputs: Path) -> None:
    overrides = [f"experiment=digits/{family}", "trainer=fsdp", "logger=none", "trainer.accelerator=cpu"]
    with pytest.raises(
        GenlabError, match=r"trainer=fsdp is for diffusion and flow matching: a \w+ trains with trainer=ddp"
    ):
        train(preflight("train", overrides), outputs / "run")


def test_what_cannot_be_is_refused_before_anything_is_imported() -> None:
    with pytest.raises(GenlabError, match=r"trainer\.strategy=deepspeed: there is ddp and fsdp"):
        preflight("train", ["experiment=digits/ddpm", "trainer.strategy=deepspeed"])
    with pytest.raises(GenlabError, match="16-mixed"):
        preflight("train", ["experiment=imagenet64/adm", "data=digits", "trainer=fsdp", "trainer.precision=16-mixed"])
