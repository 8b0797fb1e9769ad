"""The photographs and cut-out objects in Debian packages, selected by eye.

Packages that were inspected and rejected:

- gnome-backgrounds, ukui-wallpapers, sway-backgrounds, xfdesktop4-data and ktuberling-data: renders and drawings;
- gimp-help-en: one photograph under many filters, not under a listed licence;
- opencv-doc and visp-images-data: test pictures of unclear origin, calibration boards, synthetic scenes;
- the faces of gnome-control-center-data: its copyright file does not name the photographers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Source:
    """The pictures to take from one package.

    Patterns are globs of paths in the package; `*` also matches slashes.

    Attributes:
        package: name of the Debian package.
        photos: patterns of photographs.
        cutouts: patterns of objects with transparency.
        left_out: pattern of pictures to skip -> reason.
        stated: licence and author from the package's own text on its pictures, where that text says more than the
            copyright file.
    """

    package: str
    photos: tuple[str, ...] = ()
    cutouts: tuple[str, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)
    stated: tuple[str, str] = ("", "")

    def wants(self, path: str, patterns: tuple[str, ...]) -> bool:
        return any(fnmatchcase(path, p) for p in patterns) and not any(fnmatchcase(path, p) for p in self.left_out)


_PLASMA_PHOTOS = (
    "Autumn BytheWater ColdRipple ColorfulCups DarkestHour EveningGlow FallenLeaf Grey Kite OneStandsOut Path "
    "summer_1am"
)

SOURCES = (
    Source("mate-backgrounds", photos=("*/backgrounds/mate/nature/*.jpg",)),
    Source(
        "lomiri-wallpapers-16.04",
        photos=("*/backgrounds/*.jpg",),
        left_out={"*/umang_by*": "abstract render", "*/analogpattern_by*": "several exposures on one picture"},
    ),
    Source("lomiri-wallpapers-20.04", photos=("*/Kleiber_by*.jpg",)),
    Source(
        "lxqt-themes",
        photos=("*/lxqt/wallpapers/*.jpg", "*/lxqt/wallpapers/*.png"),
        left_out={
            "*logo*": "gradient with a logo",
            "*origami*": "gradient with a logo",
            "*plasma*": "abstract render",
            "*triangles*": "drawing",
            "*/simple_blue*": "gradient",
        },
    ),
    Source(
        "plasma-workspace-wallpapers",
        photos=tuple(f"*/wallpapers/{name}/contents/images/2560x1600.jpg" for name in _PLASMA_PHOTOS.split()),
    ),
    Source("plasma-workspace-data", photos=("*/plasma/avatars/photos/*.png",)),
    Source("palapeli-data", photos=("*/palapeli/collection/*.jpg",)),
    Source(
        "scratch",
        photos=("*/Media/Backgrounds/*.jpg",),
        left_out={
            "*/school2.jpg": "drawing",
            "*/room[12].jpg": "drawing",
            "*/moon.jpg": "the same picture is in stellarium-data, larger",
        },
    ),
    Source(
        "stellarium-data",
        photos=(
            "*/landscapes/garching/garching-g*.png",
            "*/landscapes/guereins/guereins?.png",
            "*/landscapes/hurricane/hurricane?.png",
            "*/landscapes/ocean/ocean?.png",
            "*/landscapes/moon/apollo17.png",
            "*/landscapes/mars/mars.png",
        ),
    ),
    Source(
        "python3-sklearn",
        photos=("*/datasets/images/china.jpg", "*/datasets/images/flower.jpg"),
        stated=("CC-BY-2.0", "danielbuechele (china), vultilion (flower); datasets/images/README.txt"),
    ),
    Source(
        "python3-skimage",
        photos=tuple(f"*/skimage/data/{name}" for name in ("chelsea.png", "coffee.png", "rocket.jpg", "gravel.png")),
        stated=(
            "CC0-1.0 and public-domain",
            "S. van der Walt (chelsea), R. Michetti (coffee), SpaceX (rocket), CC0Textures (gravel); docstrings",
        ),
    ),
    Source(
        "tuxpaint-stamps-default",
        cutouts=("*/tuxpaint/stamps/*.png",),
        left_out={
            "*/cartoon/*": "drawings",
            "*/stamps/symbols/*": "letters, coins and signs",
            "*/roadsigns/*": "drawings",
            "*/flags/*": "drawings",
            "*/seasonal/easter/*": "drawings",
            "*/seasonal/hanukkah/*": "drawings",
            "*/christmas/[Sbs]*.png": "drawings: Santa, bow, star, stocking",
            "*/halloween/j*.png": "drawing",
            "*/clothes/button.png": "drawing",
            "*/0_sun.png": "drawing",
            "*/ww2_german_gun.png": "drawing",
            "*_mirror.png": "the mirror image of another stamp",
        },
    ),
    Source(
        "torcs-data",
        photos=(
            *("*/tracks/*/house*facade.png", "*/tracks/*/house1[0-9].png", "*/tracks/*/PDKKA??.png"),
            *(
                "*/tracks/*/rockwall.png",
                "*/tracks/*/rock-wall-*.png",
                "*/tracks/*/rock1-*.png",
                "*/tracks/*/cliff*.png",
            ),
            *("*/tracks/*/strawbale*.png", "*/tracks/*/stone1.png", "*/tracks/*/wall14*.png", "*/tracks/*/cabin.png"),
        ),
        cutouts=("*/tracks/*/tree*_n.png",),
        left_out={
            "*/treeUGLIES*": "many small people on one picture",
            "*/treeC[34]_n.png": "many small people on one picture",
            "*/tree_eva_n.png": "a person",
            "*/tree-*_n.png": "many trees on one picture",
            "*/treeS3_n.png": "a girder",
            "*/treefc_n.png": "a wire fence",
            "*/PDKKA0[23].png": "a sign, and a wall with people",
        },
    ),
)
