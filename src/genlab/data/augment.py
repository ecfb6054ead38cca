"""Augmentation whose parameters the network is told, so that they do not leak into what it generates."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class Drawn(NamedTuple):
    """What one augmentation of each image is; all zero is none, and angles are anticlockwise."""

    xflip: Tensor  # (B,) 0 or 1
    yflip: Tensor  # (B,) 0 or 1
    scale: Tensor  # (B,) in standard deviations of log₂
    angle: Tensor  # (B,) of rotation, in radians
    aniso: Tensor  # (B,) in standard deviations of log₂
    axis: Tensor  # (B,) the angle along which anisotropic scaling stretches
    shift: Tensor  # (B, 2) right and down, in standard deviations

    def labels(self) -> Tensor:
        """(B, 9) as EDM's network takes them: flips, scale, (cos φ - 1, sin φ), aniso · (cos, sin) of its axis, shift."""
        columns = [self.xflip, self.yflip, self.scale, self.angle.cos() - 1, self.angle.sin()]
        columns += [self.aniso * self.axis.cos(), self.aniso * self.axis.sin(), *self.shift.unbind(1)]
        return torch.stack(columns, dim=1)


BICUBIC = REFLECTION = 2  # as torch numbers them


class Resampled(torch.autograd.Function):
    """Bicubic `grid_sample` with reflected borders, differentiable in x as often as one likes: torch's own is so once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(x, places)
        return functional.grid_sample(x, places, mode="bicubic", padding_mode="reflection", align_corners=True)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, places = ctx.saved_tensors
        return Spilled.apply(gradient, x, places), None  # pyright: ignore[reportReturnType]


class Spilled(torch.autograd.Function):
    """The adjoint of `Resampled`: both are linear, so each is the other's derivative."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, x: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        backward = torch.ops.aten.grid_sampler_2d_backward
        return backward(gradient.contiguous(), x, places, BICUBIC, REFLECTION, True, [True, False])[0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return Resampled.apply(gradient, *ctx.saved_tensors), None, None  # pyright: ignore[reportReturnType]


class Geometric:
    """The non-leaking augmentation of EDM: flips, then scaling, rotation, anisotropic scaling and translation.

    Each is eligible with probability min(1, p · its own factor), independently; its parameter is 0 otherwise. Factors are
    relative to p as published: `xflip` 1e8 is always eligible, and then flips half of the images. Rotations are uniform
    over the circle; `scale_std` and `aniso_std` are of log₂, `translate_std` is relative to the image's side, and with
    `aniso_rotate` probability the stretched axis is uniform, and horizontal otherwise.

    Karras et al. 2022, arXiv:2206.00364, appendix F.2, after Karras et al. 2020, arXiv:2006.06676. Unlike theirs, images
    are resampled once by bicubic interpolation with reflected borders, without their sym6 wavelet filters at twice the
    resolution, and an image that is only flipped is not resampled.
    """

    def __init__(
        self,
        *,
        p: float,
        xflip: float,
        yflip: float,
        scale: float,
        rotate_frac: float,
        aniso: float,
        translate_frac: float,
        scale_std: float,
        aniso_std: float,
        aniso_rotate: float,
        translate_std: float,
    ):
        self.p, self.xflip, self.yflip = p, xflip, yflip
        self.scale, self.rotate_frac, self.aniso, self.translate_frac = scale, rotate_frac, aniso, translate_frac
        self.scale_std, self.aniso_std, self.translate_std = scale_std, aniso_std, translate_std
        self.aniso_rotate = aniso_rotate

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) images in model space -> (the same augmented, (B, 9) labels); torch's own random numbers."""
        drawn = self.draw(len(x), x.device)
        return self.apply(x, drawn), drawn.labels()

    def draw(self, n: int, device: torch.device, p: float | Tensor | None = None) -> Drawn:
        """Parameters of n images, with another probability than its own if p is given."""
        p = self.p if p is None else p

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, device=device)

        def eligible(factor: float) -> Tensor:
            return uniform(n) < factor * p

        return Drawn(
            xflip=(eligible(self.xflip) & (uniform(n) < 0.5)).float(),
            yflip=(eligible(self.yflip) & (uniform(n) < 0.5)).float(),
            scale=eligible(self.scale) * torch.randn(n, device=device),
            angle=eligible(self.rotate_frac) * (2 * uniform(n) - 1) * math.pi,
            aniso=eligible(self.aniso) * torch.randn(n, device=device),
            axis=(uniform(n) < self.aniso_rotate) * (2 * uniform(n) - 1) * math.pi,
            shift=eligible(self.translate_frac)[:, None] * torch.randn(n, 2, device=device),
        )

    def apply(self, x: Tensor, drawn: Drawn, shift: Tensor | None = None) -> Tensor:
        """(B, C, H, W) the images x, augmented by given parameters, after whole pixels of `shift` (B, 2) right and down: one
        map, so that what the shift moved out of the image may come back, and no resampling of what is only shifted."""
        x = torch.where(drawn.xflip.bool().view(-1, 1, 1, 1), x.flip(3), x)
        x = torch.where(drawn.yflip.bool().view(-1, 1, 1, 1), x.flip(2), x)
        height, width = x.shape[2:]
        resized = (drawn.scale != 0) | (drawn.angle != 0) | (drawn.aniso != 0) | (drawn.shift != 0).any(1)
        # pixels from the centre, x to the right and y down; the outermost pixels are ±1 to grid_sample
        half = torch.tensor([max(width - 1, 1) / 2, max(height - 1, 1) / 2], device=x.device)
        across = torch.arange(width, device=x.device) - (width - 1) / 2
        down = torch.arange(height, device=x.device) - (height - 1) / 2
        v, u = torch.meshgrid(down, across, indexing="ij")
        target = torch.stack([u, v, torch.ones_like(u)], dim=2)  # (H, W, 3)
        with torch.autocast(x.device.type, enabled=False):  # places in bfloat16 would be pixels off
            source = torch.einsum("bij,hwj->bhwi", self.inverse(drawn, width, height), target)  # (B, H, W, 2)
            source = source if shift is None else source - shift[:, None, None, :]
            resampled: Tensor = Resampled.apply(x, (source / half).to(x.dtype))  # pyright: ignore[reportAssignmentType]
        still = x if shift is None else moved(x, *shift.flip(1).unbind(1), reflect=True)
        return torch.where(resized.view(-1, 1, 1, 1), resampled, still)

    def inverse(self, drawn: Drawn, width: int, height: int) -> Tensor:
        """(B, 2, 3) the affine map in pixels from a place in the augmented image to where its colour comes from."""
        s = (-self.scale_std * drawn.scale).exp2()
        r = (-self.aniso_std * drawn.aniso).exp2()
        along, back = rotation(drawn.axis), rotation(-drawn.axis)
        stretch = back @ torch.diag_embed(torch.stack([r, 1 / r], dim=1)) @ along
        linear = s.view(-1, 1, 1) * rotation(drawn.angle) @ stretch  # (B, 2, 2)
        side = torch.tensor([width, height], device=s.device, dtype=s.dtype)
        shift = self.translate_std * drawn.shift * side
        return torch.cat([linear, -(linear @ shift[:, :, None])], dim=2)


def moved(x: Tensor, down: Tensor, right: Tensor, reflect: bool) -> Tensor:
    """(B, C, H, W) each image moved by whole pixels (B,), its borders reflected or 0 outside of it."""
    places = [
        torch.arange(size, device=x.device) - shift[:, None]
        for size, shift in zip(x.shape[2:], (down, right), strict=True)
    ]
    inside = [(p >= 0) & (p < size) for p, size in zip(places, x.shape[2:], strict=True)]
    rows, columns = (size - 1 - (size - 1 - p.abs()).abs() for p, size in zip(places, x.shape[2:], strict=True))
    each = torch.arange(len(x), device=x.device)[:, None, None]
    y = x[each, :, rows.clamp_min(0)[:, :, None], columns.clamp_min(0)[:, None, :]].permute(0, 3, 1, 2)
    return y if reflect else y * (inside[0][:, None, :, None] & inside[1][:, None, None, :])


def rotation(angle: Tensor) -> Tensor:
    """(B, 2, 2) matrices [[cos, -sin], [sin, cos]] of (B,) angles."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack([torch.stack([cos, -sin], dim=1), torch.stack([sin, cos], dim=1)], dim=1)
