"""`propagate bench`."""

# Annotations are evaluated here, see `options.command`.
from typing import Annotated

from propagate.app import options
from propagate.app.bench.choices import ClipChoices
from propagate.app.terminal.console import Terminal

EXAMPLES = (
    "Examples:\n\n"
    "propagate bench --config compact --dense\n\n"
    "propagate bench clip.mp4 --mask first_frame.png --config compact --config rgb --repeat 5\n\n"
    "propagate bench --size 640x360 --objects 10 --frames 60 --json > times.json"
)


def bench(
    terminal: Terminal,
    weights: options.Weights,
    clip: ClipChoices,
    configs: Annotated[
        list[str] | None, options.configs_option("Preset or YAML file; repeat to compare. \\[default: compact]")
    ] = None,
    changes: options.Changes = options.NO_CHANGES,
    repeat: Annotated[int, options.count("Runs after the warm-up.", options.RUNNING, show_default=True)] = 3,
    dense: Annotated[bool, options.flag("--dense", "Time the dense formulation, too.", options.RUNNING)] = False,
    as_json: Annotated[bool, options.flag("--json", "Print JSON and nothing else.", options.OUTPUT)] = False,
) -> None:
    """Time every stage and the whole run, for one preset or several in turns."""
    from propagate.app.bench.benching import check_size, run_bench
    from propagate.settings import DEFAULT_PRESET

    settings = [(name, changes.resolve(name)) for name in configs or [DEFAULT_PRESET]]
    size = check_size(clip.size, clip.video)
    run_bench(clip, size, settings, terminal, repeat=repeat, dense=dense, as_json=as_json)
