"""What every family takes, and a short training of it."""

import lightning as L
import pytest
import torch
from torch.utils.data import DataLoader

from genlab.averaging import Constant
from genlab.callbacks.budget import Budget
from genlab.codec import Vectors
from genlab.optimization import Optimization


@pytest.fixture
def common():
    """The arguments that every GenerativeModule takes, for points of `dim` numbers."""

    def build(dim, classes=0, codec=None, **optimization):
        return {
            "codec": codec or Vectors(1.0),
            "shape": (dim,),
            "optimizer": Optimization(torch.optim.SGD, **{"lr": 0.1} | optimization),
            "averaging": Constant(0.99),
            "classes": classes,
        }

    return build


@pytest.fixture
def fit(tmp_path):
    """Train a module once over a list of batches of one size, counting images."""

    def run(module, batches, *callbacks):
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
            callbacks=[*callbacks, Budget(0, len(batches[0].x))],
        )
        trainer.fit(module, DataLoader(batches, batch_size=None))

    return run
