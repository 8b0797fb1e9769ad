"""Every setting with its default and its range."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from propagate.errors import UsageError
from propagate.settings.checks import reject_bool_as_number, reject_nameless_parts, reject_unstorable
from propagate.settings.overrides import long_form

MOST_FRAMES = 10**9  # a year of video at 30 frames per second
_SIZE = re.compile(r"\s*(\d*\.?\d+)\s*([KMGT]I?)?B?\s*", re.IGNORECASE)


def _with_unit(size: Any) -> Any:
    """Normalize a size for pydantic, which knows no bare K, M, G, T and ignores the rest of the text."""
    parts = _SIZE.fullmatch(str(size))
    bare = isinstance(size, str) and size.strip().replace(".", "").isdigit()  # 300 what? A number in YAML is in bytes
    if parts is None or bare:
        raise PydanticCustomError("memory_size", "Not a size such as 6GB, 6GiB or 512MB")
    number, unit = parts.groups()
    return f"{number}{unit or ''}B"


MemorySize = Annotated[ByteSize, BeforeValidator(_with_unit)]


def memory_size(text: str, option: str) -> int:
    """Parse a size such as 6GB or 512MiB, the value of an option, into bytes. Raises UsageError if invalid."""
    try:
        return int(TypeAdapter(MemorySize).validate_python(text))
    except ValidationError as error:
        raise UsageError(f"{option} {text}: {error.errors()[0]['msg']}.", f"For example {option} 20GB.") from error


class _Section(BaseModel):
    # Ranges are wide: values outside are typing errors, run out of memory or cannot be computed.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _yes_is_no_number(cls, value: Any, info: Any) -> Any:
        return reject_bool_as_number(value, cls.model_fields[str(info.field_name)].annotation)


class VideoSettings(_Section):
    """Which frames to read, and their size for feature extraction."""

    reader: Literal["auto", "decord", "pyav", "folder"] = "auto"
    strict: bool = Field(False, description="treat a video that ends early as an error, not a warning")
    from_frame: Annotated[int, Field(ge=0, le=MOST_FRAMES)] = 0
    to_frame: Annotated[int, Field(ge=1, le=MOST_FRAMES)] | None = Field(None, description="stop before this frame")
    stride: int = Field(1, ge=1, le=MOST_FRAMES, description="read every n-th frame")
    # twice the 4320 of 8K video
    short_side: Annotated[int, Field(ge=16, le=8192)] | None = Field(
        480, description="resize frames to this short side before feature extraction; null: keep their size"
    )
    long_multiple: int = Field(1, ge=1, le=1024, description="also round the long side to a multiple of this")
    rounding: Literal["down", "up"] = Field("down", description="direction of rounding to the multiples")

    @property
    def reading(self) -> dict[str, Any]:
        """Keywords of `propagate.video.open_video`."""
        return self.model_dump(include={"reader", "strict", "from_frame", "to_frame", "stride"})

    @property
    def sizing(self) -> dict[str, Any]:
        """Keywords of `propagate.geometry.working_size`."""
        return self.model_dump(include={"short_side", "long_multiple", "rounding"})


class FeatureSettings(_Section):
    """The extractor and its options: every keyword of `build_extractor(name, ...)` is a key here.

    `features: [{name: a}, {name: b}]` is short for `features: {name: fusion, parts: [{name: a}, {name: b}]}`.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str = "compact"
    batch_size: int = Field(1, ge=1, le=1024, description="frames per forward pass")

    @model_validator(mode="before")
    @classmethod
    def _list_is_fusion(cls, values: Any) -> Any:
        if isinstance(values, BaseModel):
            return values
        return reject_nameless_parts(reject_unstorable(long_form(values), "features"))

    @property
    def options(self) -> dict[str, Any]:
        """The extractor's own options."""
        return dict(self.model_extra or {})


class PropagationSettings(_Section):
    """The transfer step (PROTOCOLS: DIFT, DINO, CRW)."""

    # 10,000 frames of the smallest features at 480p take 25 GB
    n_last: int = Field(7, ge=0, le=10_000, description="recent frames in memory beside the anchors")
    n_older: int = Field(0, ge=0, le=10_000, description="earlier frames that stay in memory, too")
    older_every: int = Field(5, ge=1, le=MOST_FRAMES, description="keep every n-th of these frames")
    # the number of cells of a frame at 480p
    top_k: Annotated[int, Field(ge=1, le=10_000)] = 5
    # below, float32 cosines cannot differ by less; above, all weights are equal
    temperature: Annotated[float, Field(ge=1e-6, le=1000)] = 0.1
    window: Literal["square", "circle", "none"] = "square"
    # no grid is wider; to search everywhere: window = none
    radius: float = Field(12, ge=0, le=10_000, description="radius of the window, in grid cells")
    exempt_anchors: bool = Field(False, description="search anchors without a window")
    ties: Literal["cut", "keep"] = Field("cut", description="keep: every key that equals the k-th counts (DIFT)")
    memory_dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto", description="auto: float16 on CUDA unless ties = keep, else float32"
    )
    finer: bool = Field(False, description="carry labels on a finer grid; needs features with a finer map")
    finer_from: int = Field(10, ge=1, le=10_000, description="coarse cells to find; top_k counts their finer cells")


class MaskLabelSettings(_Section):
    """Conversion of masks to labels on the grid and back."""

    codec: Literal["soft", "dift", "crw"] = Field("soft", description="dift, crw: exactly as in those scripts")
    encode: Literal["area", "blend", "nearest"] = "area"
    upsample: Literal["guided", "bicubic", "bilinear"] = Field(
        "guided", description="guided: bicubic, and outlines follow the colors of the frame"
    )
    stretch: bool = Field(True, description="stretch each channel to 0..1 over the frame before the argmax")
    vanish: float = Field(0.1, ge=0, le=1, description="an object whose label stays below this is absent")


class KeypointLabelSettings(_Section):
    """Conversion of keypoints to labels on the grid and back."""

    codec: Literal["subpixel", "jhmdb"] = Field("subpixel", description="jhmdb: exactly as in CRW's script")
    encode: Literal["gaussian", "bilinear"] = "gaussian"
    # a narrower one misses every cell's center; a wider one is flat over the whole grid
    sigma: float = Field(0.7, ge=0.1, le=100, description="sigma of the gaussian, in grid cells")
    absent: float = Field(0.02, ge=0, le=1, description="confidence below which a joint is absent")


class LabelSettings(_Section):
    """The two label codecs."""

    masks: MaskLabelSettings = MaskLabelSettings()
    keypoints: KeypointLabelSettings = KeypointLabelSettings()


class OutputSettings(_Section):
    """Files that a run writes beside its masks or keypoints."""

    overlay: bool = Field(True, description="write an annotated video")
    crf: int = Field(20, ge=0, le=51, description="its H.264 quality; lower is better")
    soft: bool = Field(False, description="write the soft label maps, one .npz per frame")


class Settings(_Section):
    """All sections; `Settings()` is the base of the preset `compact`."""

    video: VideoSettings = VideoSettings()
    features: FeatureSettings = FeatureSettings()
    propagation: PropagationSettings = PropagationSettings()
    labels: LabelSettings = LabelSettings()
    output: OutputSettings = OutputSettings()
    max_memory: MemorySize | None = Field(
        None, description="such as 6GB or 512MiB: smaller steps that fit; null: no limit"
    )
