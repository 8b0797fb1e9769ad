"""Feature extractors, by name.

A new one is a module with a class or function that returns a `FeatureExtractor`, and one line in `EXTRACTORS`.
Other packages register theirs under the entry-point group `propagate.extractors`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.metadata import EntryPoint
from typing import Annotated, Any, cast, get_type_hints

from pydantic import AfterValidator, BeforeValidator, TypeAdapter, ValidationError

from propagate.errors import UsageError
from propagate.features.extractor import FeatureExtractor
from propagate.features.networks.local_files import expanded
from propagate.features.plugins import check_contract, installed_extractors, load_builder, provider
from propagate.settings import nearest
from propagate.settings.checks import reject_bool_as_number, reject_infinite
from propagate.weights.locating import Wanted

__all__ = [
    "EXTRACTORS",
    "FeatureExtractor",
    "build_extractor",
    "extractor_names",
    "extractor_options",
    "wanted_weights",
]

# name -> "module:builder"; imported on use, so that listing them stays fast
EXTRACTORS = {
    "cleandift": "propagate.features.stable_diffusion.cleandift:CleanDIFT",
    "compact": "propagate.features.compact.compact:CompactDiffusion",
    "dift_adm": "propagate.features.adm.adm:AdmDiffusion",
    "dift_sd": "propagate.features.stable_diffusion.dift:StableDiffusion",
    "dino": "propagate.features.vit.vit:Dino",
    "dinov2": "propagate.features.vit.vit:DinoV2",
    "dinov3": "propagate.features.vit.vit:DinoV3",
    "fusion": "propagate.features.fusion:Fusion",
    "hyperfeatures": "propagate.features.stable_diffusion.hyperfeatures:Hyperfeatures",
    "openclip": "propagate.features.vit.vit:OpenClip",
    "prompt_attention": "propagate.features.learned_prompts.prompt_attention:PromptAttention",
    "rgb": "propagate.features.rgb:ColorPatches",
    "sd_layers": "propagate.features.stable_diffusion.layers:StableDiffusionLayers",
}

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def build_extractor(name: str, **options: Any) -> FeatureExtractor:
    """Build an extractor by name; options are its builder's keywords, the same as in presets.

    Raises:
        UsageError: unknown name or option, a missing option, or an invalid value; a name that two packages chose, or a
            package whose extractor cannot be imported or does not fulfil the contract.
        WeightsError: its weights are missing.
    """
    builder, entry = _builder(name)
    extractor = builder(**_checked(name, builder, options))
    if entry is not None:
        check_contract(extractor, entry)
    return cast("FeatureExtractor", extractor)


def wanted_weights(name: str, **options: Any) -> tuple[Wanted, ...]:
    """Return the weights that `build_extractor` would load with these options, without building it.

    Extractors of other packages do not declare theirs: for them the result is empty.

    Raises:
        UsageError: as for `build_extractor`, as far as it shows without the weights.
    """
    builder, entry = _builder(name)
    if entry is not None or not hasattr(builder, "wanted_weights"):
        return ()
    weights: tuple[Wanted, ...] = builder.wanted_weights(**_checked(name, builder, options))
    return weights


def _checked(name: str, builder: Callable[..., Any], options: dict[str, Any]) -> dict[str, Any]:
    """Return the options, validated by the builder's annotations."""
    known = inspect.signature(builder).parameters
    hints = get_type_hints(builder.__init__ if inspect.isclass(builder) else builder, include_extras=True)
    checked = {}
    for option, value in expanded(options).items():
        if option not in known:
            raise UsageError(f"features.{option}: {name} has no such option.", nearest(option, known))
        hint = hints.get(option, Any)
        reject_bool = BeforeValidator(partial(reject_bool_as_number, annotation=hint))
        annotation: Any = Annotated[hint, reject_bool, AfterValidator(reject_infinite)]
        try:
            checked[option] = TypeAdapter(annotation).validate_python(value)
        except ValidationError as error:
            raise UsageError(
                f"features.{option} = {value!r}: {error.errors()[0]['msg']}.", f"See `propagate config show {name}`."
            ) from error
    for option, parameter in known.items():
        is_required = parameter.default is parameter.empty and parameter.kind not in _VARIADIC
        if is_required and option not in options:
            raise UsageError(f"features.{option}: {name} needs it.", f"Set it with --set features.{option}=VALUE.")
    return checked


def extractor_names() -> list[str]:
    """Return all names that can be built: ours and those of installed packages."""
    return sorted({*EXTRACTORS, *installed_extractors()})


def extractor_options(name: str) -> dict[str, Any]:
    """Return an extractor's options and their defaults; `inspect.Parameter.empty` for required ones.

    Raises:
        UsageError: there is no such extractor, or it cannot be imported.
    """
    return {key: parameter.default for key, parameter in inspect.signature(_builder(name)[0]).parameters.items()}


def _builder(name: str) -> tuple[Callable[..., Any], EntryPoint | None]:
    """Return the class or function that builds an extractor, and its entry point if another package registers it."""
    entries = installed_extractors().get(name, [])
    claimants = [*(["dift-propagate itself"] if name in EXTRACTORS else []), *map(provider, entries)]
    if len(claimants) > 1:
        raise UsageError(
            f"features.name = {name}: {' and '.join(claimants)} have an extractor of that name.",
            f"Rename the entry point of {claimants[-1]}, or uninstall it.",
        )
    if entries:
        return load_builder(entries[0]), entries[0]
    if name not in EXTRACTORS:
        raise UsageError(f"features.name = {name}: there is no such extractor.", nearest(name, extractor_names()))
    module, _, attribute = EXTRACTORS[name].partition(":")
    return cast("Callable[..., Any]", getattr(import_module(module), attribute)), None
