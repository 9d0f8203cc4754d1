"""Pictures to latents."""

from __future__ import annotations

import re
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import BadInput
from .retina import Gaze, Retina, Surround


class PictureEncoder(nn.Module):
    """An encoder that reads pictures as numbers from -1 to 1: `read` is what a subclass gives.

    Attributes:
        early: layers of `trunk` whose outcome a surround is told, 0 where the rest sees all of a picture anyway.
        surround: what tells every place what is around it (`retina.Surround`), if anything does.
    """

    trunk: nn.Sequential
    early = 0

    def __init__(self) -> None:
        super().__init__()
        self.surround: Surround | None = None

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 pictures `[B, size, size, 3]` to latents `[B, D]`, in the precision of the weights."""
        return self.read(_image(pixels).to(next(self.parameters()).dtype))

    def read(self, image: Tensor) -> Tensor:
        """Pictures `[B, 3, size, size]` in [-1, 1] to latents `[B, D]`."""
        raise NotImplementedError

    def find(self, image: Tensor) -> Tensor:
        """What the trunk finds in pictures, told half-way what is around where there is a surround."""
        if self.surround is None:
            return self.trunk(image)  # type: ignore[no-any-return]
        return self.trunk[self.early :](self.surround(self.trunk[: self.early](image)))  # type: ignore[no-any-return]


class ConvEncoder(PictureEncoder):
    """A small convolutional network that keeps where things are: three strided layers, flattened, one projection.

    The projection ends in a batch normalisation without affine terms, as SIGReg wants it (LeWM, arXiv 2603.19312).

    Args:
        image_size: height and width of the pictures, a multiple of 16, pixels.
        width: channels of the first layer, a multiple of 4; the next two have 2 and 3 times as many.
        latent_dim: D, features of the latent, >= 1.
    """

    early = 2

    def __init__(self, image_size: int, width: int, latent_dim: int) -> None:
        super().__init__()
        # One coarse layer of large overlapping kernels instead of two fine ones: what it sees is as sharp, and on a
        # CPU, where large feature maps cost more than arithmetic, training is half as long.
        layers: list[nn.Module] = [nn.Conv2d(3, width, kernel_size=8, stride=4, padding=2), nn.SiLU(inplace=True)]
        for i in (1, 2):
            layers += [nn.Conv2d(i * width, (i + 1) * width, kernel_size=3, stride=2, padding=1)]
            layers += [nn.GroupNorm(4, (i + 1) * width), nn.SiLU(inplace=True)]
        self.trunk = nn.Sequential(*layers)
        self.project = nn.Linear(3 * width * (image_size // 16) ** 2, latent_dim)
        self.normalise = nn.BatchNorm1d(latent_dim, affine=False)

    def read(self, image: Tensor) -> Tensor:
        return self.normalise(self.project(self.find(image).flatten(1)))


class KeypointEncoder(PictureEncoder):
    """A small convolutional network that says where its features are: one place a feature map, then one projection.

    Each of D / 2 maps is turned into a distribution over the picture, and that into its mean (the spatial softmax of
    deep spatial autoencoders, Finn et al., arXiv 1509.06113). Two points on one body make its angle a linear function
    of the latent, which a flattened map hides from the loss.

    Args:
        image_size: height and width of the pictures, a multiple of 16, pixels.
        width: channels of the two inner layers, a multiple of 4.
        latent_dim: D, features of the latent, even, >= 2.
    """

    cells: Tensor
    early = 5

    def __init__(self, image_size: int, width: int, latent_dim: int) -> None:
        super().__init__()
        if latent_dim % 2:
            raise BadInput("keypoint encoder: latent_dim is off", expected="an even number", got=str(latent_dim))
        points = latent_dim // 2
        self.trunk = nn.Sequential(
            nn.Conv2d(3, width, kernel_size=8, stride=4, padding=2),
            nn.SiLU(inplace=True),
            nn.Conv2d(width, width, kernel_size=3, padding=1),
            nn.GroupNorm(4, width),
            nn.SiLU(inplace=True),
            nn.Conv2d(width, points, kernel_size=3, padding=1),
        )
        self.sharpness = nn.Parameter(torch.ones(points))  # log of the inverse temperature of each map
        self.project = nn.Linear(2 * points, latent_dim)
        self.normalise = nn.BatchNorm1d(latent_dim, affine=False)
        self.register_buffer("cells", torch.linspace(-1, 1, image_size // 4), persistent=False)

    def read(self, image: Tensor) -> Tensor:
        maps = self.find(image) * self.sharpness.exp()[:, None, None]
        return self.normalise(self.project(places(maps, self.cells)))


class ViTEncoder(PictureEncoder):
    """A vision transformer on 16 x 16 patches, whatever the picture's size: ViT-Tiny where the width is 192.

    Twelve pre-norm blocks (Dosovitskiy et al., arXiv 2010.11929); the class token is projected.

    Args:
        image_size: height and width of the pictures, a multiple of 16, pixels.
        width: features of a token, a multiple of 64; an attention head has 64 of them.
        latent_dim: D, features of the latent, >= 1.
    """

    def __init__(self, image_size: int, width: int, latent_dim: int) -> None:
        super().__init__()
        if width % 64:
            raise BadInput("vit encoder: width is off", expected="a multiple of 64", got=str(width))
        self.patches = nn.Conv2d(3, width, kernel_size=image_size // 16, stride=image_size // 16)
        self.place = nn.Parameter(0.02 * torch.randn(1 + 16 * 16, width))
        block = nn.TransformerEncoderLayer(
            width, width // 64, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, 12, nn.LayerNorm(width), enable_nested_tensor=False)
        self.project = nn.Linear(width, latent_dim)
        self.normalise = nn.BatchNorm1d(latent_dim, affine=False)

    def read(self, image: Tensor) -> Tensor:
        patches = self.patches(image).flatten(2).transpose(1, 2)
        # The class token starts as its place alone.
        tokens = F.pad(patches, (0, 0, 1, 0)) + self.place
        return self.normalise(self.project(self.blocks(tokens)[:, 0]))


class AdaptedEncoder(PictureEncoder):
    """An encoder behind a retina (`retina.Retina`), which starts as no change: latents are then the encoder's own.

    Args:
        encoder: one that reads pictures.
        gaze: what follows a camera that stands aside (`retina.Gaze`), behind the retina; none by default. It starts as
            no change but rounding.
    """

    def __init__(self, encoder: PictureEncoder, gaze: Gaze | None = None) -> None:
        super().__init__()
        self.retina, self.gaze, self.encoder = Retina(), gaze, encoder

    def read(self, image: Tensor) -> Tensor:
        seen = self.retina(image)
        return self.encoder.read(seen if self.gaze is None else self.gaze(seen))


class JoinedEncoder(PictureEncoder):
    """Two encoders of one latent space: where they agree on a picture, the exact one is believed, else the other.

    An encoder that was never taught looks sees a picture like those it was trained on more exactly, and any other
    wildly wrong; the one that was taught its latents sees both almost as well. So where the two are further apart than
    they are on 95 of 100 plain pictures (`training.join`), the taught one is believed, and no latent is further than
    that from the taught one's. Looks that change little, as faint noise does, are seen now by one and now by the other.

    Args:
        plain: one that reads pictures, never taught looks.
        taught: the same, behind a retina and, maybe, a gaze; it was taught `plain`'s latents.
    """

    apart: Tensor

    def __init__(self, plain: PictureEncoder, taught: AdaptedEncoder) -> None:
        super().__init__()
        self.plain, self.taught = plain, taught
        self.register_buffer("apart", torch.zeros(()))  # mean square distance up to which they agree

    def read(self, image: Tensor) -> Tensor:
        plain, taught = self.plain.read(image), self.taught.read(image)
        agree = (plain - taught).square().mean(1, keepdim=True) <= self.apart
        return torch.where(agree, plain, taught)


class FeatureEncoder(nn.Module):
    """Somebody else's pretrained features, as an encoder: they stand still, and their scale is taken off.

    `ENCODERS["mine"] = lambda size, width, latent_dim: FeatureEncoder(backbone, latent_dim)` makes it a choice of
    `JEPAConfig.encoder`. Predictors expect latents of variance 1; the statistics come from the data
    (`planner.pretrained.settle`).

    Args:
        backbone: pictures `[B, 3, size, size]` in [-1, 1], float32 unless the model was cast, to features `[B, D]`, of
            any precision.
        latent_dim: D, >= 1.

    Raises:
        BadInput: in `forward`, if the backbone returns anything but such features.
    """

    def __init__(self, backbone: nn.Module, latent_dim: int) -> None:
        super().__init__()
        self.backbone = deepcopy(backbone).eval().requires_grad_(False)  # every model has one of its own
        self.normalise = nn.BatchNorm1d(latent_dim, affine=False)

    def train(self, mode: bool = True) -> FeatureEncoder:
        """Only the statistics of normalisation know training; the backbone stays as it came."""
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, pixels: Tensor) -> Tensor:
        """uint8 pictures `[B, size, size, 3]` to latents `[B, D]`."""
        features, count = self.backbone(_image(pixels).to(self._dtype)), self.normalise.num_features
        if not isinstance(features, Tensor) or features.shape != (len(pixels), count):
            got = str(tuple(features.shape)) if isinstance(features, Tensor) else type(features).__name__
            do = "return one vector a picture from the backbone, and set latent_dim to its length"
            expected = f"a tensor {(len(pixels), count)}"
            raise BadInput("the backbone's features are off", expected=expected, got=got, do=do)
        return self.normalise(features.to(self._dtype))

    @property
    def _dtype(self) -> torch.dtype:
        """Of the model that this is a part of: the backbone's own may be another."""
        return next(self.normalise.buffers()).dtype


def places(maps: Tensor, cells: Tensor) -> Tensor:
    """Mean place of each map's softmax: log-weights `[B, K, n, n]`, coordinates `[n]` to `[B, 2 K]`, every x first."""
    share = maps.flatten(2).softmax(-1).unflatten(2, maps.shape[2:])
    return torch.cat([(share.sum(2) * cells).sum(-1), (share.sum(3) * cells).sum(-1)], 1)


def _image(pixels: Tensor) -> Tensor:
    """uint8 `[B, size, size, 3]` to float32 `[B, 3, size, size]` in [-1, 1]."""
    # The bytes lie channels-last already, which is the layout that convolutions on CPUs are fastest in.
    return pixels.movedim(-1, -3).to(torch.float32).div_(127.5).sub_(1)


RETINA = "+retina"
"""What the name of an encoder behind a retina has after its own."""
JOINED = "+joined"
"""What the name of an encoder joined with one behind a retina has there."""
GAZE = "+gaze"
"""What follows either where there is a gaze too."""
SURROUND = "+surround"
"""What ends the name where there is a surround too."""
_ENDINGS = re.compile(f"(.+)({re.escape(RETINA)}|{re.escape(JOINED)})({re.escape(GAZE)})?({re.escape(SURROUND)})?")


@dataclass(frozen=True)
class EncoderName:
    """What an encoder's name in `ENCODERS` says of it.

    Attributes:
        base: name of the bare encoder; somebody else's whole name where it ends in none of ours.
        retina: whether all of it stands behind a retina.
        joined: whether it is the bare one joined with one behind a retina.
        gaze: whether there is a gaze behind that retina.
        surround: whether early layers behind it are told what is around each place.
    """

    base: str
    retina: bool = False
    joined: bool = False
    gaze: bool = False
    surround: bool = False

    @classmethod
    def parse(cls, name: str) -> EncoderName:
        """Takes a name apart; `name` puts any one together again as it was."""
        if (found := _ENDINGS.fullmatch(name)) is None:
            return cls(name)
        base, kind, gaze, surround = found.groups()
        return cls(base, kind == RETINA, kind == JOINED, gaze is not None, surround is not None)

    @property
    def name(self) -> str:
        kind = RETINA * self.retina + JOINED * self.joined
        return f"{self.base}{kind}{GAZE * self.gaze}{SURROUND * self.surround}"

    @property
    def adapted(self) -> bool:
        """Whether there is a retina: before all of it, or before what is joined."""
        return self.retina or self.joined


def _adapted(name: EncoderName, image_size: int, width: int, latent_dim: int) -> AdaptedEncoder:
    bare = _BARE[name.base](image_size, width, latent_dim)
    bare.surround = Surround(width) if name.surround else None
    return AdaptedEncoder(bare, Gaze(image_size) if name.gaze else None)


def _joined(name: EncoderName, image_size: int, width: int, latent_dim: int) -> JoinedEncoder:
    plain = _BARE[name.base](image_size, width, latent_dim)
    return JoinedEncoder(plain, _adapted(name, image_size, width, latent_dim))


_BARE: dict[str, type[ConvEncoder] | type[KeypointEncoder] | type[ViTEncoder]] = {
    "conv": ConvEncoder,
    "keypoints": KeypointEncoder,
    "vit": ViTEncoder,
}
ENCODERS: dict[str, Callable[[int, int, int], nn.Module]] = {
    **_BARE,
    **{
        name.name: partial(_joined if joined else _adapted, name)
        for joined in (False, True)
        for gaze in (False, True)
        for base in _BARE
        for surround in (False, True)
        if _BARE[base].early or not surround
        for name in [EncoderName(base, not joined, joined, gaze, surround)]
    },
}
"""By name; each is made from image_size, width and latent_dim. Yours may join them, before checkpoints with it load."""
BUILT_IN = tuple(ENCODERS)
"""Ours, which are random before they are trained."""
