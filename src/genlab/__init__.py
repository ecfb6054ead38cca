"""genlab: generative models side by side, on Lightning and Hydra."""

__version__ = "0.1.0"
