"""The free picture set, made from a small package folder; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from training import free_pictures
from training.free_picture_sources import Source
from training.free_pictures import (
    collect,
    cutout,
    licence_allowed,
    looks_drawn,
    nearly_flat,
    package_terms,
    tiles,
)

COPYRIGHT = """Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: 2001 First Author
License: GPL-2+
 long text, which is not part of the name

Files: backgrounds/sea.jpg
       backgrounds/sell?.jpg
Copyright: 2002 Second Author
License: CC-BY-NC-3.0

Files: old/place/moved.jpg
Copyright: 2003 Third Author
License: CC-BY-SA-4.0
"""


def structure(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Color noise with soft edges, as even as a photograph of leaves."""
    noise = np.random.default_rng(seed).integers(0, 255, (height // 4 + 1, width // 4 + 1, 3), np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def stamp(height: int, width: int) -> np.ndarray:
    """A structured disk on nothing, RGBA."""
    ys, xs = np.mgrid[:height, :width]
    inside = (ys - height / 2) ** 2 + (xs - width / 2) ** 2 < (min(height, width) / 4) ** 2
    return np.dstack([structure(height, width), np.where(inside, 255, 0).astype(np.uint8)])


def package(root: Path, **pictures: np.ndarray) -> Path:
    doc = root / "usr/share/doc/pictures"
    doc.mkdir(parents=True)
    (doc / "copyright").write_text(COPYRIGHT)
    folder = root / "usr/share/backgrounds"
    folder.mkdir()
    for name, pixels in pictures.items():
        ending = "png" if pixels.shape[2] == 4 else "jpg"
        Image.fromarray(pixels).save(folder / f"{name}.{ending}")
    for kind in ("photos", "cutouts"):
        (root / "out" / kind).mkdir(parents=True)
    return root


@pytest.mark.parametrize(
    "licence",
    [
        "GPL-2+",
        "GPL-2.0-or-later",
        "LGPLv3",
        "CC0-1.0",
        "CC-BY-4.0",
        "CC-BY-SA-3.0~us",
        "Public Domain",
        "BSD-3-Clause",
        "Expat",
        "Artistic-2.0",
        "Free-Art-License",
        "GFDL-1.2 or GPL-2+",
        "GPL-2 and CC-BY-SA-3.0",
    ],
)
def test_free_licences_are_kept(licence):
    assert licence_allowed(licence)


@pytest.mark.parametrize(
    "licence",
    [
        "CC-BY-NC-3.0",
        "CC-BY-ND-4.0",
        "CC-BY-NC-SA-2.0",
        "GFDL-1.2+",
        "FDL",
        "GNU-FDL",
        "non-free",
        "",
        "GPL-2 and FDL",
        "GPL-2, CC-BY-NC-3.0",
        "CC-BY-SA-NC-3.0",
    ],
)
def test_other_licences_are_refused(licence):
    assert not licence_allowed(licence)


def test_the_last_paragraph_that_names_a_file_counts():
    assert package_terms(COPYRIGHT, "usr/share/backgrounds/other.jpg").licence == "GPL-2+"
    assert package_terms(COPYRIGHT, "usr/share/backgrounds/sea.jpg").licence == "CC-BY-NC-3.0"
    assert package_terms(COPYRIGHT, "usr/share/backgrounds/sells.jpg").licence == "CC-BY-NC-3.0"


def test_a_file_installed_elsewhere_is_found_by_its_name():
    terms = package_terms(COPYRIGHT, "usr/share/new/moved.jpg")
    assert (terms.licence, terms.author) == ("CC-BY-SA-4.0", "2003 Third Author")


def test_a_text_that_names_no_file_gives_no_terms():
    assert package_terms("This package is free software.\n", "usr/share/backgrounds/sea.jpg") is None


def test_pictures_under_refused_licences_are_not_written(tmp_path):
    root = package(tmp_path, sea=structure(300, 400), meadow=structure(300, 400, 1))
    entries = collect(Source("pictures", photos=("*.jpg",)), root, "1.0-1", root / "out")
    assert [e.file for e in entries] == ["photos/pictures__meadow.jpg"]
    assert (entries[0].licence, entries[0].author, entries[0].version) == ("GPL-2+", "2001 First Author", "1.0-1")
    assert sorted(p.name for p in (root / "out/photos").iterdir()) == ["pictures__meadow.jpg"]


def test_what_lies_beside_a_picture_counts_more_than_the_package(tmp_path):
    root = package(tmp_path, meadow=structure(300, 400), bee=structure(300, 400, 1))
    folder = root / "usr/share/backgrounds"
    (folder / "meadow.desktop").write_text("X-KDE-PluginInfo-License=FDL\n")
    (folder / "bee.desktop").write_text(
        "X-KDE-PluginInfo-Author=A. Beekeeper\nX-KDE-PluginInfo-License=Public Domain\n"
    )
    (entry,) = collect(Source("pictures", photos=("*.jpg",)), root, "1", root / "out")
    assert (entry.file, entry.licence, entry.author) == ("photos/pictures__bee.jpg", "Public Domain", "A. Beekeeper")


def test_what_the_source_states_counts_more_than_the_package(tmp_path):
    root = package(tmp_path, sea=structure(300, 400))
    source = Source("pictures", photos=("*.jpg",), stated=("CC-BY-2.0", "B. Sailor"))
    (entry,) = collect(source, root, "1", root / "out")
    assert (entry.licence, entry.author) == ("CC-BY-2.0", "B. Sailor")


def test_left_out_patterns_and_second_copies_are_not_taken(tmp_path):
    root = package(tmp_path, meadow=structure(300, 400), copy=structure(300, 400), logo=structure(300, 400, 1))
    source = Source("pictures", photos=("*.jpg",), left_out={"*/logo.jpg": "drawing"})
    assert len(collect(source, root, "1", root / "out")) == 1


def test_different_pictures_of_one_name_both_stay(tmp_path):
    root = package(tmp_path, meadow=structure(300, 400))
    (root / "usr/share/more").mkdir()
    Image.fromarray(structure(300, 400, 1)).save(root / "usr/share/more/meadow.jpg")
    entries = collect(Source("pictures", photos=("*.jpg",)), root, "1", root / "out")
    assert sorted(e.file for e in entries) == ["photos/pictures__meadow.jpg", "photos/pictures__more-meadow.jpg"]


def test_a_package_without_copyright_file_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        collect(Source("pictures", photos=("*.jpg",)), tmp_path, "1", tmp_path)


def test_photographs_are_reduced_and_never_enlarged(tmp_path):
    root = package(tmp_path, small=structure(300, 400), large=structure(700, 900, 1))
    collect(Source("pictures", photos=("*.jpg",)), root, "1", root / "out")
    shapes = {p.stem: cv2.imread(str(p)).shape for p in (root / "out/photos").iterdir()}
    assert shapes == {"pictures__small": (300, 400, 3), "pictures__large": (512, 658, 3)}


def test_an_object_is_cut_to_its_opaque_box_and_stays_rgba(tmp_path):
    root = package(tmp_path, frog=stamp(400, 500))
    (entry,) = collect(Source("pictures", cutouts=("*.png",)), root, "1", root / "out")
    with Image.open(root / "out" / entry.file) as picture:
        assert picture.mode == "RGBA"
        assert picture.size == (199, 199)
        alpha = np.array(picture)[..., 3]
    assert alpha[100, 100] == 255
    assert alpha[0, 0] == 0


def test_large_objects_have_a_long_side_of_384():
    assert max(cutout(stamp(1000, 1700)).shape[:2]) == free_pictures.CUTOUT_LONG


@pytest.mark.parametrize("alpha", [0, 255])
def test_a_picture_without_outline_is_no_object(alpha):
    assert cutout(np.dstack([structure(200, 200), np.full((200, 200), alpha, np.uint8)])) is None


def test_a_drawn_object_is_refused():
    drawn = stamp(400, 400)
    drawn[..., :3] = (200, 30, 30)
    assert cutout(drawn) is None


def test_drawings_are_told_from_photographs():
    assert looks_drawn(np.full((200, 200, 3), 90, np.uint8))
    assert not looks_drawn(structure(200, 200))


def test_a_panorama_keeps_the_rows_below_its_transparent_sky():
    rgba = np.dstack([structure(400, 600), np.full((400, 600), 255, np.uint8)])
    rgba[:150, 200:500, 3] = 0
    ((ending, pixels),) = free_pictures.photographs(rgba)
    assert ending == ""
    np.testing.assert_array_equal(pixels, rgba[150:, :, :3])


def test_a_large_picture_is_tiled_without_overlap():
    picture = structure(1600, 2400)
    found = dict(tiles(picture))
    assert sorted(found) == [f"_r{row}c{column}" for row in range(2) for column in range(3)]
    assert all(tile.shape == (400, 400, 3) for tile in found.values())
    expected = cv2.resize(picture[800:, 1600:], (400, 400), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(found["_r1c2"], expected)


def test_a_picture_of_two_megapixels_has_no_tiles():
    assert not list(tiles(structure(1000, 2000)))
    assert list(tiles(structure(1001, 2000)))


def test_flat_tiles_are_skipped():
    picture = structure(1600, 1600)
    picture[:800, 800:] = (120, 160, 220)
    assert sorted(dict(tiles(picture))) == ["_r0c0", "_r1c0", "_r1c1"]
    assert nearly_flat(np.tile(np.linspace(0, 60, 400).astype(np.uint8)[:, None, None], (1, 400, 3)))
