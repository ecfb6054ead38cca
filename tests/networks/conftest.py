"""A network as its file in conf/network describes it, without the rest of a run."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import nn

from genlab.folders import conf_dir
from genlab.instantiation import build


@pytest.fixture(scope="session")
def recipe() -> Callable[..., nn.Module]:
    """recipe(name, shape, classes, device, **changes): conf/network/name.yaml for such data."""

    def recipe(
        name: str, shape: Sequence[int] = (3, 32, 32), classes: int = 0, device: str = "cpu", **changes: Any
    ) -> nn.Module:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            config = compose(overrides=[f"+network={name}"])
        OmegaConf.set_struct(config, False)
        around = {
            "data": {"shape": list(shape)},
            "model": {"classes": classes, "shape": list(shape)},
            "network": changes,
        }
        config = OmegaConf.merge(config, OmegaConf.create(around))
        OmegaConf.resolve(config)
        with torch.device(device):
            return build(config.network)

    return recipe
