"""Codecs for mouth crops: bytes per hour, frames per second per core, error.

    python benchmarks/video_storage.py CLIP.mp4… [--landmarks dlib]

Every clip's mouth crops are written and read back by each candidate. Its figures
determined the format that `espnet_smop/fileio/video.py` writes.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from espnet_smop.corpus.landmarks import build_landmarks
from espnet_smop.corpus.media import read_pictures
from espnet_smop.corpus.mouth import crop, crop_transforms
from espnet_smop.fileio.video import OPTIONS, read_video, write_video

_H264 = {"preset": "veryfast", "tune": "fastdecode", "x264-params": "mbtree=0"}
CANDIDATES = {
    "ffv1": (".mkv", "ffv1", {}),
    "ffv1 slices 4": (".mkv", "ffv1", {"slices": "4", "level": "3", "coder": "1"}),
    "h264 lossless": (".mkv", "libx264", {"qp": "0", "preset": "veryfast"}),
    "h264 crf 17, superfast (ours)": (".mkv", "libx264", OPTIONS),
    "h264 crf 18": (".mkv", "libx264", {"crf": "18", **_H264}),
    "h264 crf 15": (".mkv", "libx264", {"crf": "15", **_H264}),
    "h264 crf 12, mbtree": (".mkv", "libx264", {"crf": "12", **_H264, "x264-params": "mbtree=1"}),
    "h264 crf 15 (mp4)": (".mp4", "libx264", {"crf": "15", **_H264}),
    "h264 crf 15, no fastdecode": (".mkv", "libx264", {"crf": "15", **_H264, "tune": "psnr"}),
    "h264 crf 12": (".mkv", "libx264", {"crf": "12", **_H264}),
    "h264 crf 15 all intra": (".mkv", "libx264", {"crf": "15", "g": "1", **_H264}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="+", help="video files with a face")
    parser.add_argument("--landmarks", default="dlib", help="landmark provider")
    parser.add_argument("--repeats", type=int, default=5, help="timings are the best of N")
    args = parser.parse_args()
    provider = build_landmarks(args.landmarks)
    clips = []
    for path in args.clips:
        transforms = crop_transforms(provider(path, path))
        last = len(transforms) - 1
        clips.append(
            np.stack([crop(p.grey(), transforms[min(p.index, last)]) for p in read_pictures(path)])
        )
    frames = sum(len(clip) for clip in clips)
    print(f"{len(clips)} clips, {frames} frames of {clips[0].shape[1:]}")
    print("| codec | MB/h | encode frames/s | decode frames/s | PSNR dB | max error |")
    print("|---|---|---|---|---|---|")
    for name, (suffix, codec, options) in CANDIDATES.items():
        with tempfile.TemporaryDirectory() as directory:
            files = [Path(directory, f"{i}{suffix}") for i in range(len(clips))]
            write = read = float("inf")
            for _ in range(args.repeats):
                start = time.perf_counter()
                for file, clip in zip(files, clips, strict=True):
                    write_video(file, clip, codec=codec, options=options)
                middle = time.perf_counter()
                decoded = [read_video(file) for file in files]
                end = time.perf_counter()
                write, read = min(write, middle - start), min(read, end - middle)
            size = sum(file.stat().st_size for file in files)
        error = np.concatenate(decoded).astype(int) - np.concatenate(clips)
        mse = (error**2).mean()
        psnr = f"{10 * np.log10(255**2 / mse):.1f}" if mse else "lossless"
        print(
            f"| {name} | {size / frames * 25 * 3600 / 1e6:.0f} | {frames / write:.0f} "
            f"| {frames / read:.0f} | {psnr} | {abs(error).max()} |"
        )


if __name__ == "__main__":
    main()
