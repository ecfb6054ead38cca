"""One adaptive solver for all that follows the probability flow: samplers, latents and log-densities."""

from collections.abc import Callable

from torch import Tensor
from torchdiffeq import odeint

from genlab.errors import GenlabError

Parts = tuple[Tensor, ...]


def integrate(
    field: Callable[[Tensor, Parts], Parts], start: Parts, times: Tensor, tolerance: float, most: int
) -> Parts:
    """Each part of the state at all (T,) times, (T, ...), of d state/dt = field(t, state), by dopri5.

    `tolerance` is absolute and relative. Raises GenlabError where it is not reached within `most` evaluations.
    """
    evaluations = 0

    def counted(t: Tensor, state: Parts) -> Parts:
        nonlocal evaluations
        evaluations += 1
        if evaluations > most:
            raise GenlabError(
                f"the ODE does not reach its tolerance {tolerance:g} in {most} evaluations: "
                "raise its tolerance, or `most`"
            )
        return field(t.double(), state)  # which torchdiffeq rounds to the precision of the state

    times = times.to(start[0].device)
    ends = times[-1:]  # or the last step would overshoot, and there is no path below t = 0
    try:
        return odeint(counted, start, times, rtol=tolerance, atol=tolerance, method="dopri5", options={"step_t": ends})  # pyright: ignore
    except AssertionError as error:  # torchdiffeq's word for a step that has become nothing: the field is too steep
        raise GenlabError(
            f"the ODE does not reach its tolerance {tolerance:g}: {error}; "
            "the network may answer NaN, or raise its tolerance"
        ) from None
