"""From noise to data, step by step; a sampler sees a Denoiser and nothing else of a model."""

from genlab.gaussian.samplers.ancestral import DDIM, Ancestral
from genlab.gaussian.samplers.langevin import AnnealedLangevin, PredictorCorrector
from genlab.gaussian.samplers.multistep import DPMSolverPP, UniPC
from genlab.gaussian.samplers.ode import Euler, Heun, ProbabilityFlow
from genlab.gaussian.samplers.sampler import OneStep, Sampler, State
from genlab.gaussian.samplers.sde import EulerMaruyama, ReverseDiffusion

__all__ = [
    "DDIM",
    "Ancestral",
    "AnnealedLangevin",
    "DPMSolverPP",
    "Euler",
    "EulerMaruyama",
    "Heun",
    "OneStep",
    "PredictorCorrector",
    "ProbabilityFlow",
    "ReverseDiffusion",
    "Sampler",
    "State",
    "UniPC",
]
