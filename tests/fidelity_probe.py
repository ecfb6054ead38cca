"""Run by tests and benchmarks as a process of its own: torch-fidelity's Inception, with weights and images from files.

FOLDER WEIGHTS IMAGES OUT. torch-fidelity imports torchvision, whose compiled half is absent beside a CPU build of torch, and
which other libraries must not see; so both lie in a folder of their own, and two operators are declared in its place.
"""

import sys

import torch

folder, weights, images, out = sys.argv[1:]
operators = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
sys.path.append(folder)

from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3  # pyright: ignore
from torch_fidelity.interpolate_compat_tensorflow import (  # pyright: ignore
    interpolate_bilinear_2d_like_tensorflow1x as resize,
)

x = torch.load(images)
network = FeatureExtractorInceptionV3("inception", ["2048", "logits_unbiased"], weights)
result = {key: resize(v.float(), size=(299, 299), align_corners=False) for key, v in x.items() if "resize" in key}
with torch.no_grad():
    result["features"], result["logits"] = network(x["small"])
    network.double().feature_extractor_internal_dtype = torch.float64  # its option "float64" of 0.4.0 is float32
    result["features64"], result["logits64"] = network(x["large"])
torch.save(result, out)
