"""Download freely licensed pictures from Debian packages, for training without labels.

    python -m training.free_pictures --out DIR

downloads the packages of `SOURCES` with `apt-get download`, unpacks them, and writes

- `DIR/photos/<package>__<name>.jpg`: photographs and tiles of large ones, RGB, short side at most 512;
- `DIR/cutouts/<package>__<name>.png`: single objects with transparency, RGBA, long side at most 384;
- `DIR/sources.csv`: file, package, version, licence and author of every picture.

A picture is kept only if the copyright file of its package, or a file beside the picture, states a licence that
`licence_allowed` accepts. `SOURCES` selects photographs; `looks_drawn` rejects drawings among them.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from fnmatch import fnmatchcase
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.free_picture_sources import SOURCES, Source

Pixels = NDArray[np.uint8]  # (height, width, 3) RGB or (height, width, 4) RGBA

PHOTO_SHORT, CUTOUT_LONG = 512, 384
TILE, TILE_SHORT, TILED_FROM = 800, 400, 2_000_000  # pixels, pixels, pixels of area
JPEG_QUALITY = 92


@dataclass(frozen=True)
class Terms:
    """Licence and author of a picture."""

    licence: str
    author: str


@dataclass(frozen=True)
class Entry:
    """A line of sources.csv."""

    file: str
    package: str
    version: str
    licence: str
    author: str


_ALLOWED = re.compile(
    r"(public[ -]domain|PD|CC0|CC-BY(-SA)?|L?GPL|AGPL|BSD|MIT|Expat|Artistic|Free-Art|FAL)"
    r"(v?[-_ ]?\d[\w.+]*|-only|-or-later|-[23]-Clause|-License|~\w+)*\+?",
    re.IGNORECASE,
)


def licence_allowed(licence: str) -> bool:
    """Return whether a licence, as written in a copyright file, permits the distribution of a trained model.

    If licences are joined by "or", one must be allowed; if they are joined by "and" or a comma, all must be. A licence
    that is not listed is refused: the noncommercial and no-derivatives variants of Creative Commons, the free
    documentation licence, and text that cannot be parsed.
    """
    alternatives = re.split(r"\s+or\s+", licence.strip(), flags=re.IGNORECASE)
    return any(
        all(_ALLOWED.fullmatch(part.strip()) for part in re.split(r"\s+and\s+|,", alternative, flags=re.IGNORECASE))
        for alternative in alternatives
    )


def package_terms(copyright_text: str, path: str) -> Terms | None:
    """Return the terms of a file from a machine-readable Debian copyright file, or None if it has no entry.

    Paragraphs name files by their path in the source package, and the installed path usually differs. So a pattern
    also matches by its end or by the file name. The last matching paragraph counts, as the format requires.
    """
    found = None
    for paragraph in re.split(r"\n\s*\n", copyright_text):
        values = {
            m[1].lower(): m[2] for m in re.finditer(r"^(\w[\w-]*):((?:.*)(?:\n[ \t].*)*)", paragraph, re.MULTILINE)
        }
        if "files" not in values or "license" not in values:
            continue
        if any(_fits(path, pattern) for pattern in values["files"].split()):
            licence = values["license"].strip().split("\n")[0].strip()
            found = Terms(licence, " ".join(values.get("copyright", "").split()))
    return found


def _fits(path: str, pattern: str) -> bool:
    name = pattern.rsplit("/", 1)[-1]
    if pattern == "*" or fnmatchcase(path, f"*/{pattern}"):
        return True
    return len(name.strip("*?.")) > 4 and fnmatchcase(path.rsplit("/", 1)[-1], name)


def own_terms(picture: Path) -> Terms:
    """Return the terms from a description file beside the picture or up to two folders above it.

    Supported files are `.desktop` and `metadata.json` of KDE and `landscape.ini` of Stellarium. Missing values are
    empty strings.
    """
    folders = (picture.parent, *picture.parent.parents)[:3]
    candidates = [picture.with_suffix(".desktop")]
    candidates += [f / name for f in folders for name in ("metadata.json", "metadata.desktop", "landscape.ini")]
    for description in candidates:
        if description.is_file():
            text = description.read_text("utf-8", "replace")
            licence = re.search(r'"License":\s*"([^"]+)"|PluginInfo-License=(.+)', text)
            author = re.search(
                r'"Authors":[^]]*?"Name":\s*"([^"]+)"|PluginInfo-Author=(.+)|^author\s*=\s*(.+)', text, re.MULTILINE
            )
            return Terms(_first_group(licence), _first_group(author))
    return Terms("", "")


def _first_group(match: re.Match[str] | None) -> str:
    return next((group.strip() for group in match.groups() if group), "") if match else ""


def looks_drawn(rgb: Pixels, opaque: NDArray[np.bool_] | None = None) -> bool:
    """Return whether a picture has the flat areas of drawings and gradients.

    The thresholds were measured on the wallpapers and stamps of `SOURCES`. In every photograph, fewer than 65 % of
    horizontally adjacent pixels have equal brightness, and the four most frequent colors (5 bits per channel) cover
    less than 65 %.
    """
    opaque = np.ones(rgb.shape[:2], bool) if opaque is None else opaque
    gray = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY)
    equal = (gray[:, 1:] == gray[:, :-1])[opaque[:, 1:] & opaque[:, :-1]]
    red, green, blue = (rgb[opaque] >> 3).astype(np.int64).T
    colors = np.sort(np.bincount(red << 10 | green << 5 | blue))
    return bool(equal.mean() > 0.65 or colors[-4:].sum() > 0.65 * colors.sum())


def nearly_flat(rgb: Pixels) -> bool:
    """Return whether fewer than 30 % of the 16 x 16 blocks have texture, as in sky, fog or a blurred background."""
    gray = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2GRAY).astype(np.float32)
    rows, columns = gray.shape[0] // 16, gray.shape[1] // 16
    blocks = gray[: rows * 16, : columns * 16].reshape(rows, 16, columns, 16)
    return bool((blocks.std((1, 3)) > 4).mean() < 0.3)


def shrink(pixels: Pixels, side: int, short: bool) -> Pixels:
    """Return the picture reduced so that its short (or long) side is at most `side`. It is never enlarged."""
    height, width = pixels.shape[:2]
    scale = side / (min if short else max)(height, width)
    if scale >= 1:
        return pixels
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def tiles(rgb: Pixels) -> Iterator[tuple[str, Pixels]]:
    """Yield (name suffix, tile) for the tiles of a large picture that are not nearly flat.

    Tiles have a side of about 800 and are reduced to short side 400. A picture of at most two megapixels has none.
    """
    height, width = rgb.shape[:2]
    if height * width <= TILED_FROM:
        return
    ys = np.linspace(0, height, max(1, round(height / TILE)) + 1).round().astype(int)
    xs = np.linspace(0, width, max(1, round(width / TILE)) + 1).round().astype(int)
    for row, (top, bottom) in enumerate(pairwise(ys)):
        for column, (left, right) in enumerate(pairwise(xs)):
            tile = shrink(rgb[top:bottom, left:right], TILE_SHORT, short=True)
            if not nearly_flat(tile):
                yield f"_r{row}c{column}", tile


def photographs(rgba: Pixels) -> Iterator[tuple[str, Pixels]]:
    """Yield (name suffix, picture) for a photograph and its tiles; nothing for a drawing.

    Of a panorama with a transparent sky, only the opaque rows are used.
    """
    opaque_rows = (rgba[..., 3] >= 250).mean(1) > 0.999
    first = len(opaque_rows) - int(np.argmin(opaque_rows[::-1])) if not opaque_rows.all() else 0
    rgb = np.ascontiguousarray(rgba[first:, :, :3])
    if rgb.shape[0] < 128 or rgb.shape[1] < 128:
        return
    whole = shrink(rgb, PHOTO_SHORT, short=True)
    if looks_drawn(whole):
        return
    yield "", whole
    yield from tiles(rgb)


def cutout(rgba: Pixels) -> Pixels | None:
    """Return an object cropped to its opaque box, long side at most 384.

    Drawings, pictures without transparency and objects that are too small give None.
    """
    solid = rgba[..., 3] >= 128
    if not solid.any():
        return None
    ys, xs = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
    box = rgba[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
    small = shrink(box, CUTOUT_LONG, short=False)
    solid = small[..., 3] >= 128
    if min(small.shape[:2]) < 24 or solid.sum() < 1000 or solid.mean() > 0.97 or looks_drawn(small[..., :3], solid):
        return None
    return small


def collect(source: Source, root: Path, version: str, out: Path) -> list[Entry]:
    """Write the pictures of an unpacked package below `out` and return their lines for sources.csv.

    Duplicates are written once. If two different pictures have the same name, the later one gets the name of its folder
    as a prefix.

    Raises:
        FileNotFoundError: the package holds no copyright file.
    """
    text = (root / "usr/share/doc" / source.package / "copyright").read_text("utf-8", "replace")
    entries = []
    seen, names = set(), set()
    for path in sorted(p for p in root.rglob("*") if p.is_file() and not p.is_symlink()):
        inside = path.relative_to(root).as_posix()
        wanted_photo, wanted_cutout = source.wants(inside, source.photos), source.wants(inside, source.cutouts)
        if not wanted_photo and not wanted_cutout:
            continue
        own = Terms(*source.stated) if any(source.stated) else own_terms(path)
        general = package_terms(text, inside) or Terms("", "")
        terms = Terms(own.licence or general.licence, own.author or general.author)
        if not licence_allowed(terms.licence):
            print(f"left out: {source.package} {inside}: licence {terms.licence or 'not stated'}")
            continue
        digest = hashlib.sha256(path.read_bytes()).digest()
        if digest in seen:
            continue
        seen.add(digest)
        with Image.open(path) as picture:
            rgba = np.array(picture.convert("RGBA"))
        name = _name(path) if _name(path) not in names else f"{path.parent.name}-{_name(path)}"
        names.add(name)
        written = []
        if wanted_photo:
            for ending, pixels in photographs(rgba):
                written.append(out / "photos" / f"{source.package}__{name}{ending}.jpg")
                Image.fromarray(pixels).save(written[-1], quality=JPEG_QUALITY)
        elif (object_pixels := cutout(rgba)) is not None:
            written.append(out / "cutouts" / f"{source.package}__{name}.png")
            Image.fromarray(object_pixels).save(written[-1])
        entries += [Entry(w.relative_to(out).as_posix(), source.package, version, **asdict(terms)) for w in written]
    return entries


def _name(path: Path) -> str:
    """Return the stem; for a wallpaper named only by its size, return the name of the wallpaper's folder."""
    return path.parents[2].name if re.fullmatch(r"\d+x\d+", path.stem) else path.stem


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="write the pictures here")
    parser.add_argument("--packages", type=Path, help="keep downloaded .deb files here and reuse them")
    options = parser.parse_args()
    for folder in ("photos", "cutouts"):
        (options.out / folder).mkdir(parents=True, exist_ok=True)
    Image.MAX_IMAGE_PIXELS = None
    entries: list[Entry] = []
    with tempfile.TemporaryDirectory() as temporary:
        packages = options.packages or Path(temporary, "packages")
        packages.mkdir(parents=True, exist_ok=True)
        for source in SOURCES:
            if not list(packages.glob(f"{source.package}_*.deb")):
                subprocess.run(["apt-get", "download", "-q", source.package], cwd=packages, check=True)
            package = next(packages.glob(f"{source.package}_*.deb"))
            version = subprocess.run(
                ["dpkg-deb", "-f", package, "Version"], check=True, capture_output=True, text=True
            ).stdout.strip()
            root = Path(temporary, source.package)
            subprocess.run(["dpkg-deb", "-x", package, root], check=True)
            new = collect(source, root, version, options.out)
            print(f"{source.package} {version}: {len(new)} pictures")
            entries += new
    with (options.out / "sources.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, [f.name for f in fields(Entry)])
        writer.writeheader()
        writer.writerows(asdict(entry) for entry in entries)


if __name__ == "__main__":
    main()
