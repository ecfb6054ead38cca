"""What a memory saves in autoregressive sampling: colour images of 32 x 32, drawn with it and without it.

Run: python benchmarks/sampling.py [images] >> benchmarks/results/DATE-sampling-cpu.jsonl. Without a memory the network runs
over what has been drawn so far for every pixel (PixelCNN++ over the whole image). That both say the same is tested
(tests/networks/test_autoregressive.py); images differ from where rounding first makes another level of a number. CPU seconds
of this process, one thread.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genlab.config import preflight
from genlab.instantiation import build
from genlab.noise import NoiseStream
from genlab.paradigms.autoregressive import Autoregressive

SIDE = 32
MODELS = {
    "image_transformer": ["network.width=64", "network.depth=2"],
    "pixelcnnpp": ["network.width=32", "network.blocks=1"],
}


class Forgetful(nn.Module):
    """A network without its memory: all that is known of an image is given to it again for each pixel."""

    def __init__(self, network: Any, whole: bool):
        super().__init__()
        self.network, self.whole, self.outputs = network, whole, network.outputs

    def memory(self) -> dict[str, Tensor]:
        return {}

    def forward(self, s: Tensor, y: Tensor | None, memory: dict[str, Tensor]) -> Tensor:
        known = torch.cat([memory["s"], s], dim=2) if memory else s
        memory["s"], n = known, known.shape[2]
        more = SIDE * SIDE - n if self.whole else 1  # the pixel that comes next is no input of its own law
        return self.network(F.pad(known, (0, more)), y)[:, :, n : n + 1]


def timed(draw: Callable[[], Tensor]) -> float:
    started = time.process_time()
    with torch.no_grad():
        draw()
    return time.process_time() - started


def main() -> None:
    torch.set_num_threads(1)
    images = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    for name, sizes in MODELS.items():
        config = preflight("train", [f"experiment=cifar10/{name}", *sizes])
        torch.manual_seed(0)
        model: Autoregressive = build(config.model).eval()
        fast = timed(lambda: model.sample(NoiseStream(0), images))  # noqa: B023 - called at once
        model.network = Forgetful(model.network, whole=name == "pixelcnnpp")
        slow = timed(lambda: model.sample(NoiseStream(0), images))  # noqa: B023
        row = {"model": name, "sizes": sizes, "images": images, "side": SIDE}
        row |= {"with_memory_s": round(fast, 3), "without_s": round(slow, 3), "times": round(slow / fast, 1)}
        print(json.dumps(row | {"torch": torch.__version__}), flush=True)


if __name__ == "__main__":
    main()
