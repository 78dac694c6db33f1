"""AV-HuBERT's visual front end: a spatio-temporal stem and a frame-wise ResNet-18 trunk."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.nn import functional as F

_STEM_FRAMES = 5
_FRAMES_AT_ONCE = 256
_WINDOWS_AT_ONCE = 64  # of five frames each: 10 MB of float32


class BasicBlock(nn.Module):
    """Two 3×3 convolutions with a residual connection (He et al. 2015)."""

    def __init__(self, in_channels: int, channels: int, *, stride: int, activation):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = activation(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = activation(channels)
        self.downsample = None
        if stride != 1 or in_channels != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(N, C, H, W)`` to ``(N, C', H', W')``."""
        residual = x if self.downsample is None else self.downsample(x)
        x = self.relu1(self.bn1(self.conv1(x)))
        return self.relu2(self.bn2(self.conv2(x)) + residual)


class VideoResNet(nn.Module):
    """3-D stem over five frames, then a 2-D residual trunk (Stafylakis & Tzimiropoulos 2017).

    Only the stem's convolution mixes frames, each with its four neighbours. So everything is
    computed for real frames only: padding costs nothing, and in training it does not affect
    BatchNorm's statistics.

    Args:
        stem_channels: channels of the stem, 64 in published models.
        stem_stride: spatial stride of the stem, 2 in published models.
        channels: channels of the stages, ``(64, 128, 256, 512)`` in published models.
        blocks: residual blocks in each stage, ``(2, 2, 2, 2)`` in published models.
        relu_type: ``prelu`` or ``relu``.
    """

    def __init__(
        self,
        *,
        stem_channels: int,
        stem_stride: int,
        channels: Sequence[int],
        blocks: Sequence[int],
        relu_type: str,
    ):
        super().__init__()
        activation = {"prelu": nn.PReLU, "relu": lambda _: nn.ReLU()}[relu_type]
        self.frontend3D = nn.Sequential(
            nn.Conv3d(
                1,
                stem_channels,
                (_STEM_FRAMES, 7, 7),
                stride=(1, stem_stride, stem_stride),
                padding=(_STEM_FRAMES // 2, 3, 3),
                bias=False,
            ),
            # Frame by frame from here on.
            nn.BatchNorm2d(stem_channels),
            activation(stem_channels),
            nn.MaxPool2d(3, 2, padding=1),
        )
        stages = OrderedDict()
        width = stem_channels
        for i, (stage_channels, n) in enumerate(zip(channels, blocks, strict=True)):
            stage = []
            for j in range(n):
                stride = 2 if i > 0 and j == 0 else 1
                stage.append(
                    BasicBlock(width, stage_channels, stride=stride, activation=activation)
                )
                width = stage_channels
            stages[f"layer{i + 1}"] = nn.Sequential(*stage)
        self.trunk = nn.Sequential(stages)
        self.output_size = width
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, video: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        """Encode each frame.

        Args:
            video: grey crops ``(B, T, H, W)``.
            inside: ``(B, T)``, true for real frames.

        Returns:
            ``(B, T, C)``, zero for padding.
        """
        reach = _STEM_FRAMES // 2
        padded = F.pad(video, (0, 0, 0, 0, reach, reach)).flatten(0, 1)  # (B · (T + 4), H, W)
        # (N,), where the window around each real frame begins
        places = F.pad(inside, (0, 2 * reach)).flatten().nonzero()[:, 0]
        # BatchNorm needs all frames at once in training. Otherwise small portions are faster,
        # because they fit into the cache, and long videos need little more memory than short ones.
        portion = len(places) if self.training else _FRAMES_AT_ONCE
        encoded = torch.cat([self._encode(padded, part) for part in places.split(max(portion, 1))])
        out = encoded.new_zeros(*inside.shape, self.output_size)
        return out.masked_scatter(inside[..., None], encoded)

    def _encode(self, frames: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Map the windows of ``frames`` (M, H, W) that begin at ``places`` (N,) to ``(N, C)``."""
        portions = places.split(_WINDOWS_AT_ONCE)
        stems = (self._stem(x) for part in portions for x in _windows(frames, part))
        if self.training:
            x = self.frontend3D[1:](torch.cat(list(stems)))
        else:  # pooled in portions, which takes less memory
            x = torch.cat([self.frontend3D[1:](x) for x in stems])
        return self.trunk(x).mean(dim=(2, 3))

    def _stem(self, frames: torch.Tensor) -> torch.Tensor:
        """Map ``(N, n + 4, H, W)`` to ``(N · n, C, H', W')``."""
        stem = self.frontend3D[0]
        x = F.conv3d(
            frames[:, None], stem.weight, stride=stem.stride, padding=(0, *stem.padding[1:])
        )
        x = x.transpose(1, 2).flatten(0, 1)
        if x.device.type != "cpu" or (torch.is_grad_enabled() and stem.weight.requires_grad):
            # In channels-last layout with fewer than eight channels, a gradient of a strided 1 x 1
            # convolution is written past its buffer on AVX2: oneDNN's issue 6035.
            return x
        # On a CPU pooling takes a seventh of the time with the channels last. What follows keeps
        # the layout, in which small convolutions are faster too.
        return x.contiguous(memory_format=torch.channels_last)


def _windows(frames: torch.Tensor, places: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield batches of windows ``(N, n + 4, H, W)``, each for n consecutive frames."""
    if frames.device.type != "cpu" or len(places) == 0:
        yield frames.unfold(0, _STEM_FRAMES, 1)[places].permute(0, 3, 1, 2)
        return
    # Windows of consecutive frames overlap: copying them took a third of the stem's time.
    for run in places.tensor_split((places.diff() != 1).nonzero()[:, 0] + 1):
        yield frames[None, run[0] : run[-1] + _STEM_FRAMES]
