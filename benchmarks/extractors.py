"""How fast Inception's features are extracted: genlab against torch-fidelity, with the same seeded weights.

Run: python benchmarks/extractors.py [rounds [batch]], after `make test-reference`, which installs torch-fidelity in a folder
of its own. uint8 images of 32x32x3 to pool_3 and logits, resize included, on CUDA if there is any; the sides take turns in
one process and the medians of their rates are compared, and then the largest difference of their features.
"""

import hashlib
import importlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from genlab.evaluation.inception import Inception, Network
from genlab.evaluation.resize import Pillow, TF1Bilinear
from genlab.evaluation.weights import Weights

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def seeded(path: Path) -> Weights:
    """A weight file of features that have spread."""
    torch.manual_seed(0)
    network = Network()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # statistics of the one batch that follows
    with torch.no_grad():
        network(2 * torch.rand(4, 3, 8, 8).repeat_interleave(38, 2).repeat_interleave(38, 3)[..., :299, :299] - 1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_var is not None
            module.running_var += module.running_mean**2 / 2  # pyright: ignore # or rounding errors grow with every layer
    torch.save(network.state_dict(), path)
    return Weights("", hashlib.sha256(path.read_bytes()).hexdigest(), [path.name], "", str(path))


def fidelity(path: Path) -> tuple[Callable[[Tensor], tuple[Tensor, ...]], Callable[..., Tensor]]:
    """torch-fidelity's network and its resize."""
    operators = torch.library.Library("torchvision", "DEF")  # of which a CPU build of torch has no compiled half
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    sys.path.append(str(Path(sys.prefix) / "fidelity"))
    extractor: Any = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    network = extractor.FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"], str(path)).to(DEVICE)
    globals()["kept"] = operators  # declarations end with the object
    return torch.no_grad()(network), extractor.interpolate_bilinear_2d_like_tensorflow1x


def rates(sides: dict[str, Callable[[Tensor], Any]], x: Tensor, rounds: int, repeat: int = 1) -> dict[str, float]:
    """Median images a second of sides that take turns."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for i in range(rounds + 1):
        for name in sides if i % 2 else reversed(sides):
            started = time.perf_counter()
            for _ in range(repeat):
                sides[name](x)
            if DEVICE.type == "cuda":
                torch.cuda.synchronize()
            found[name] += [repeat * len(x) / (time.perf_counter() - started)] if i else []  # the first is warming up
    return {name: round(statistics.median(values), 2) for name, values in found.items()}


def main() -> None:
    rounds, batch = (int(v) for v in (*sys.argv[1:], *("7", "32")[len(sys.argv) - 1 :]))
    x = torch.randint(0, 256, (batch, 3, 32, 32), dtype=torch.uint8, device=DEVICE)
    torch.backends.cudnn.allow_tf32 = False  # torch-fidelity leaves it to whoever calls
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "seeded.pth"
        ours = Inception(seeded(path), TF1Bilinear(299)).to(DEVICE)
        theirs, resize = fidelity(path)
    found = rates({"genlab": ours, "torch-fidelity": theirs}, x, rounds)
    print(json.dumps({"images/s": found, "ratio": round(found["genlab"] / found["torch-fidelity"], 2)}))
    resizes: dict[str, Callable[[Tensor], Any]] = {
        "TF1 bilinear": TF1Bilinear(299),
        "TF1 bilinear of torch-fidelity": lambda x: resize(x.float(), size=(299, 299), align_corners=False),
        "Pillow bicubic": Pillow("bicubic", 299),
        "Pillow bicubic, 8-bit": Pillow("bicubic", 299, rounded=True),
    }
    print(json.dumps({"resized images/s": rates(resizes, x, rounds, 4)}))
    mine, others = ours(x), theirs(x)
    difference = ((a - b).abs().max() / b.abs().max() for a, b in zip(mine[:2], others, strict=True) if a is not None)
    print(
        json.dumps(
            {"largest difference, relative": dict(zip(("pool3", "logits"), map(float, difference), strict=True))}
        )
    )
    where = {"device": torch.cuda.get_device_name() if DEVICE.type == "cuda" else "cpu", "cores": os.cpu_count()}
    settings = {"torch": torch.__version__, "threads": torch.get_num_threads(), "batch": batch, "rounds": rounds}
    print(json.dumps({**settings, **where, "load of the last minute": round(os.getloadavg()[0], 2)}))


if __name__ == "__main__":
    main()
