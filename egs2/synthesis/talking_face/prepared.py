"""LRS3 in its two prepared forms, with mouth crops already cut.

auto_avsr's:

    labels/lrs3_{train,test}_transcript_lengths_seg16s.csv   lrs3,<path>,<frames>,<token ids>
    lrs3/lrs3_video_seg16s/<part>/<speaker>/<clip>.{mp4,wav} crops and sound
    lrs3/lrs3_text_seg16s/<part>/<speaker>/<clip>.txt        upper-case text

AV-HuBERT's:

    {video,audio}/<part>/<speaker>/<clip>.{mp4,wav}
    433h_data/{train,valid,test}.{tsv,wrd}                   30h_data: without pretrain
    file.list label.list nframes.audio nframes.video

In the former, pretrain clips carry their segment's number (``_00``); in the latter, their part is
called short-pretrain. Mini clips are too short to be cut in either.
"""

from pathlib import Path

import cv2
import numpy as np

from talking_face.files import write_mp4, write_text, write_wav

_STABLE = (33, 36, 39, 42, 45)
_REFERENCE = np.array(
    [(128.870, 137.303), (92.522, 94.369), (112.772, 94.944), (145.525, 94.535), (166.677, 93.566)]
)
_SIDE = 96
_SMOOTHING = 6  # frames to either side
_CRF = 16


def crop_mouths(grey: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Cut 96 × 96 mouths as both preparations do.

    Args:
        grey: uint8 ``(T, height, width)``.
        landmarks: ``(T, 68, 2)``.

    Returns:
        uint8 ``(T, 96, 96)``.
    """
    crops = np.empty((len(grey), _SIDE, _SIDE), np.uint8)
    for t, picture in enumerate(grey):
        points = landmarks[max(t - _SMOOTHING, 0) : t + _SMOOTHING + 1].mean(0)
        points += landmarks[t].mean(0) - points.mean(0)
        affine = _similarity(points[list(_STABLE)], _REFERENCE)
        centre = points[48:].mean(0) @ affine[:, :2].T + affine[:, 2]
        affine[:, 2] -= np.round(centre) - _SIDE // 2
        crops[t] = cv2.warpAffine(picture, affine, (_SIDE, _SIDE))
    return crops


def _similarity(points: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the least-squares map (2, 3) by rotation, scaling and shift of points to others."""
    # As complex numbers, it is one multiplication and one addition.
    z, w = (p[:, 0] + 1j * p[:, 1] for p in (points.astype(float), reference))
    turn = np.vdot(z - z.mean(), w - w.mean()) / np.vdot(z - z.mean(), z - z.mean()).real
    shift = w.mean() - turn * z.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])


def write_clip(
    out: Path, form: str, name: str, crops: np.ndarray, samples: np.ndarray, text: str
) -> None:
    """Write a clip's crops (T, 96, 96), sound and, for auto_avsr, text."""
    height = crops.shape[1] * 3 // 2
    video = np.full((len(crops), height, _SIDE), 128, np.uint8)
    video[:, :_SIDE] = crops
    name = _renamed(name, form)
    if form == "auto_avsr":
        pictures = sound = out / "lrs3/lrs3_video_seg16s" / name
        write_text(out / "lrs3/lrs3_text_seg16s" / f"{name}.txt", text.upper())
    else:
        pictures, sound = out / "video" / name, out / "audio" / name
    write_mp4(pictures.with_suffix(".mp4"), video, None, _CRF)
    write_wav(sound.with_suffix(".wav"), samples)


def _renamed(name: str, form: str) -> str:
    part, speaker, clip = name.split("/")
    if part == "pretrain" and form == "auto_avsr":
        return f"{part}/{speaker}/{clip}_00"
    if part == "pretrain":
        return f"short-pretrain/{speaker}/{clip}"
    return name


def write_lists(out: Path, form: str, truth: list[dict]) -> None:
    """Write the lists of all clips, given their rows of truth."""
    if form == "auto_avsr":
        _write_csv(out, truth)
    else:
        _write_manifests(out, truth)


def _write_csv(out: Path, truth: list[dict]) -> None:
    for subset in ("train", "test"):
        rows = []
        for row in truth:
            if (row["split"] == "test") == (subset == "test"):
                name = _renamed(row["clip"], "auto_avsr")
                # auto_avsr has ids of its subwords; letters do here, since readers use the text.
                ids = " ".join(str(1 + " abcdefghijklmnopqrstuvwxyz".index(c)) for c in row["text"])
                rows.append(f"lrs3,lrs3_video_seg16s/{name}.mp4,{row['frames']},{ids}\n")
        write_text(out / f"labels/lrs3_{subset}_transcript_lengths_seg16s.csv", "".join(rows))


def _write_manifests(out: Path, truth: list[dict]) -> None:
    names = [_renamed(row["clip"], "avhubert") for row in truth]
    lists = {
        "file.list": names,
        "label.list": [row["text"].upper() for row in truth],
        "nframes.audio": [row["frames"] * 640 for row in truth],
        "nframes.video": [row["frames"] for row in truth],
    }
    for name, values in lists.items():
        write_text(out / name, "".join(f"{value}\n" for value in values))
    for directory in ("433h_data", "30h_data"):
        for subset in ("train", "valid", "test"):
            chosen = [
                (name, row)
                for name, row in zip(names, truth, strict=True)
                if row["split"] == subset
                and not (directory == "30h_data" and name.startswith("short-pretrain/"))
            ]
            table = "/\n"
            for name, row in chosen:
                video, audio = (out / f"video/{name}.mp4", out / f"audio/{name}.wav")
                paths = f"{video.absolute()}\t{audio.absolute()}"
                table += f"{name}\t{paths}\t{row['frames']}\t{row['frames'] * 640}\n"
            write_text(out / directory / f"{subset}.tsv", table)
            words = "".join(f"{row['text']}\n" for _, row in chosen)
            write_text(out / directory / f"{subset}.wrd", words)
