"""Small valid inputs that need no weights: clips, pictures, masks, keypoints and data sets' trees."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, TiffImagePlugin

from tests.benchmarks.pose_trees import badja_tree, jhmdb_tree

HEIGHT, WIDTH, FRAMES = 48, 64, 5
# name -> encoder, pixel format, options
CODECS = {
    "h264.mp4": ("libx264", "yuv420p", {"bf": "2"}),
    "h264.ts": ("libx264", "yuv420p", {}),
    "hevc.mp4": ("libx265", "yuv420p", {"x265-params": "log-level=none"}),
    "vp8.webm": ("libvpx", "yuv420p", {}),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {}),
    "av1.mp4": ("libsvtav1", "yuv420p", {}),
    "ffv1.mkv": ("ffv1", "yuv444p", {}),
    "mpeg4.avi": ("mpeg4", "yuv420p", {}),
    "mjpeg.mov": ("mjpeg", "yuvj420p", {}),
    "mpeg2.mpg": ("mpeg2video", "yuv420p", {}),
    "prores.mov": ("prores_ks", "yuv422p10le", {}),
    "flv1.flv": ("flv", "yuv420p", {}),
    "wmv2.wmv": ("wmv2", "yuv420p", {}),
    "huffyuv.avi": ("huffyuv", "yuv422p", {}),
    "png.mov": ("png", "rgb24", {}),
    "gif.gif": ("gif", "rgb8", {}),
    "apng.apng": ("apng", "rgb24", {}),
    "raw.nut": ("rawvideo", "rgb24", {}),
    "y4m.y4m": ("wrapped_avframe", "yuv420p", {}),
}


def ids(index: int = 0) -> np.ndarray:
    """(H, W) uint8: objects 1 and 2 of a frame, which move to the right."""
    found = np.zeros((HEIGHT, WIDTH), np.uint8)
    found[8:24, 8 + 4 * index : 28 + 4 * index] = 1
    found[26:42, 8 + 4 * index : 28 + 4 * index] = 2
    return found


def picture(index: int = 0) -> np.ndarray:
    """(H, W, 3) uint8: bright textured objects over a dark textured ground."""
    ground, objects = (
        np.random.default_rng(0).integers(0, 90, (2, HEIGHT // 4, WIDTH // 4, 3)).repeat(4, 1).repeat(4, 2)
    )
    inside = ids(index)[..., None] > 0
    return np.where(inside, np.roll(objects + 150, 4 * index, axis=1), ground).astype(np.uint8)


def write_clip(path: Path, codec: str, pixels: str, options: dict[str, str]) -> bool:
    """Write the frames as a video; False where this build of PyAV lacks the encoder."""
    try:
        with av.open(str(path), "w") as out:
            stream = out.add_stream(codec, rate=Fraction(10), options={"threads": "1", **options})
            stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, pixels
            for index in range(FRAMES):
                frame = av.VideoFrame.from_ndarray(picture(index), "rgb24").reformat(format=pixels)
                frame.pts, frame.time_base = index, Fraction(1, 10)
                out.mux(stream.encode(frame))
            out.mux(stream.encode())
    except (ValueError, av.FFmpegError):  # UnknownCodecError is a ValueError
        path.unlink(missing_ok=True)
        return False
    return True


def write_mask(path: Path, index: int = 0) -> Path:
    """Write a frame's objects as an indexed PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = Image.fromarray(ids(index), "P")
    mask.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    mask.save(path)
    return path


def write_frames(folder: Path, suffix: str = ".png", count: int = FRAMES) -> Path:
    """Write the frames as pictures 00000, 00001, ..."""
    folder.mkdir(parents=True)
    for index in range(count):
        Image.fromarray(picture(index)).save(folder / f"{index:05d}{suffix}")
    return folder


def masks() -> Iterator[tuple[str, Image.Image, dict[str, object]]]:
    """File name, picture and options of saving, for every mode and format that a mask may come in."""
    objects = ids()
    indexed = Image.fromarray(objects, "P")
    indexed.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    colors = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]], np.uint8)[objects]
    alpha = np.dstack([colors, (objects > 0) * np.uint8(255)])
    black = Image.fromarray((objects == 1) * np.uint8(255))
    yield "p.png", indexed, {}
    yield "p_transparent.png", indexed, {"transparency": 0}
    yield "p_two_bits.png", indexed, {"bits": 2}
    yield "l.png", Image.fromarray(objects), {}
    yield "l_white.png", black, {}
    yield "one.png", black.convert("1"), {}
    yield "i16.png", Image.fromarray(objects.astype(np.uint16)), {}
    yield "rgb.png", Image.fromarray(colors), {}
    yield "rgba.png", Image.fromarray(alpha), {}
    yield "la.png", Image.merge("LA", (Image.fromarray(objects), Image.fromarray((objects > 0) * np.uint8(255)))), {}
    yield "p.gif", indexed, {}
    yield "p.bmp", indexed, {}
    yield "rgb.bmp", Image.fromarray(colors), {}
    yield "l.tif", Image.fromarray(objects), {}
    yield "lzw.tif", indexed, {"compression": "tiff_lzw"}
    yield "deflate.tif", Image.fromarray(colors), {"compression": "tiff_adobe_deflate"}
    yield "i16.tif", Image.fromarray(objects.astype(np.uint16)), {}
    yield "i32.tif", Image.fromarray(objects.astype(np.int32)), {}
    yield "f.tif", Image.fromarray(objects.astype(np.float32)), {}
    yield "cmyk.tif", Image.fromarray(colors).convert("CMYK"), {}
    yield "tags.tif", Image.fromarray(objects), {"tiffinfo": _tags()}
    yield "lossless.webp", Image.fromarray(colors), {"lossless": True}
    yield "gray.jpg", black, {"quality": 95}
    yield "color.avif", Image.fromarray(colors), {"quality": 100, "subsampling": "4:4:4"}
    yield "l.pgm", Image.fromarray(objects), {}
    yield "rgb.ppm", Image.fromarray(colors), {}


def _tags() -> TiffImagePlugin.ImageFileDirectory_v2:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[270], tags[274], tags[305] = "a description", 1, "a program"
    return tags


def keypoint_files(folder: Path) -> list[str]:
    """Write the same points in every format; return the names."""
    folder.mkdir(parents=True, exist_ok=True)
    points = {"nose": [18.5, 16.25], "tail": [12.0, 30.0], "gone": None}
    ours = {
        "version": 1,
        "width": WIDTH,
        "height": HEIGHT,
        "names": list(points),
        "skeleton": [["nose", "tail"]],
        "frames": [{"frame": 0, "time_s": 0.0, "points": points}],
    }
    coco = {
        "images": [{"id": 7, "file_name": "00000.jpg", "width": WIDTH, "height": HEIGHT, "frame_id": 0}],
        "annotations": [
            {
                "id": 1,
                "image_id": 7,
                "category_id": 3,
                "keypoints": [18.5, 16.25, 2, 12, 30, 1, 0, 0, 0],
                "keypoint_scores": [1.0, 0.5, 0.0],
                "num_keypoints": 2,
                "bbox": [8, 8, 20, 32],
                "area": 640,
                "iscrowd": 0,
                "segmentation": [[8, 8, 28, 8, 28, 40]],
            }
        ],
        "categories": [{"id": 3, "name": "cat", "keypoints": list(points), "skeleton": [[1, 2]]}],
    }
    texts = {
        "ours.json": json.dumps(ours),
        "coco.json": json.dumps(coco),
        "points.csv": "frame,name,x,y,confidence\n0,nose,18.5,16.25,1\n0,tail,12.0,30.0,0.5\n",
        "short.csv": "name,x,y\nnose,18.5,16.25\ntail,12.0,30.0\n",
        "semicolons.csv": "name;x;y\nnose;18,5;16,25\ntail;12,0;30,0\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return list(texts)


def davis(root: Path, year: int) -> Path:
    """Write a tree with two clips and its lists."""
    for name in ("ant", "bee"):
        write_frames(root / "JPEGImages" / "480p" / name, ".jpg", 4)
        for index in range(4):
            path = root / "Annotations" / "480p" / name / f"{index:05d}.png"
            write_mask(path, index)
            if year == 2016:
                Image.fromarray((ids(index) == 1) * np.uint8(255)).save(path)
    lists = root / "ImageSets"
    (lists / "2017").mkdir(parents=True)
    (lists / "2017" / "mine.txt").write_text("bee\nant\n")
    (lists / "480p").mkdir()
    lines = [
        f"/JPEGImages/480p/{n}/{i:05d}.jpg /Annotations/480p/{n}/{i:05d}.png" for n in ("ant", "bee") for i in range(4)
    ]
    (lists / "480p" / "mine.txt").write_text("\n".join(lines) + "\n")
    return root


def jhmdb(root: Path) -> Path:
    """Write a tree with two test clips."""
    pose = np.random.default_rng(0).integers((4, 4), (40, 30), (15, 2)).astype(float)
    moving = np.stack([pose + np.array([shift, 0]) for shift in (0, 2, 4)])
    return jhmdb_tree(root, {"catch/b_1": moving, "walk/a": moving}, (40, 48))


def badja(root: Path) -> tuple[Path, Path]:
    """Write the two trees of one video."""
    joints = [[60 + 20 * i, 100 + 20 * i] for i in range(37)]
    mask = np.zeros((68, 120), np.uint8)
    mask[10:50, 20:80] = 255
    return badja_tree(root, "camel", {number: (joints, [True] * 37) for number in (0, 2, 3)}, mask)
