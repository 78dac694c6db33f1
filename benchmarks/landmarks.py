"""Effect of face detection on every k-th frame only: speed, and shifts of the crops.

    python benchmarks/landmarks.py CLIP.mp4… [--strip FILE.png]

Crops from landmarks on every k-th frame are compared with those from every frame: the distance
of the mouth's own centre (from the full landmarks) to the crop's centre, in pixels of the crop.
Speed is detection, cropping and decoding together, on one core.
"""

import argparse
import time

import cv2
import numpy as np

from espnet_smop.corpus.landmarks import DlibLandmarks
from espnet_smop.corpus.media import read_pictures
from espnet_smop.corpus.mouth import CROP_SIZE, crop, crop_transforms, fill_missing
from espnet_smop.modality import FRAME_RATE


def crops(video: str, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a video's crops, their transforms and their source frames' numbers."""
    pictures = [(p.index, p.grey()) for p in read_pictures(video)]
    index = np.minimum([i for i, _ in pictures], len(landmarks) - 1)
    transforms = crop_transforms(landmarks)[index]
    frames = [crop(grey, t) for (_, grey), t in zip(pictures, transforms, strict=True)]
    return np.stack(frames), transforms, index


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="+", help="video files with a face")
    parser.add_argument("--every", type=int, nargs="+", default=[1, 2, 3, 4, 5, 6, 8], help="k")
    parser.add_argument("--strip", help="write rows of crops, one row a k, as a picture")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    truth = {clip: fill_missing(DlibLandmarks(every=1)(clip, clip)) for clip in args.clips}
    rows = []
    print("| every | × real time | mean px | 95 % px | max px | % ≤ 3 px | scale 95 % |")
    print("|---|---|---|---|---|---|---|")
    for every in args.every:
        provider = DlibLandmarks(every=every)
        errors, scales, seconds = [], [], 0.0
        start = time.process_time()
        made = {clip: crops(clip, provider(clip, clip)) for clip in args.clips}
        took = time.process_time() - start
        for clip, (frames, transforms, index) in made.items():
            seconds += len(frames) / FRAME_RATE
            centre = truth[clip][index][:, 48:68].mean(axis=1)
            mapped = np.einsum("tij,tj->ti", transforms[:, :, :2], centre) + transforms[:, :, 2]
            errors.append(np.linalg.norm(mapped - CROP_SIZE / 2, axis=1))
            full = crop_transforms(truth[clip])[index]
            scales.append(abs(_scale(transforms) / _scale(full) - 1))
            rows.append(np.concatenate(list(frames[:: max(1, len(frames) // 12)][:12]), axis=1))
        error, scale = np.concatenate(errors), np.concatenate(scales)
        row = [every, f"{seconds / took:.1f}", f"{error.mean():.2f}"]
        row += [f"{np.quantile(error, 0.95):.2f}", f"{error.max():.2f}"]
        row += [f"{100 * (error <= 3).mean():.0f}", f"{np.quantile(scale, 0.95):.3f}"]
        print("|", " | ".join(map(str, row)), "|")
    if args.strip:
        cv2.imwrite(args.strip, np.concatenate(rows))


def _scale(transforms: np.ndarray) -> np.ndarray:
    return np.hypot(transforms[:, 0, 0], transforms[:, 1, 0])


if __name__ == "__main__":
    main()
