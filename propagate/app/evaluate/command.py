"""`propagate evaluate`: data sets, scored by their official rules."""

# Annotations are evaluated here: commands are put together from the parameters of several functions.
import inspect
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from propagate.app import options
from propagate.app.terminal.console import Terminal, reporting

if TYPE_CHECKING:
    from propagate.app.evaluate.evaluation import Choices
    from propagate.benchmarks.benchmark import Benchmark

_DATA, _SETTINGS, _RUNNING, _OUTPUT = "Data set", "Settings", "Running", "Output"

Data = Annotated[
    Path, typer.Option(metavar="DIR", help="Folder of the data set.", rich_help_panel=_DATA, show_default=False)
]
Sequences = Annotated[
    list[str] | None,
    typer.Option("--sequence", metavar="NAME", help="Only this one; may be repeated.", rich_help_panel=_DATA),
]
Resolution = Annotated[
    str, typer.Option(metavar="NAME", help="Folder of frames and masks of one size.", rich_help_panel=_DATA)
]
Configs = Annotated[
    list[str] | None,
    typer.Option(
        "--config",
        "-c",
        metavar="NAME_OR_FILE",
        help="Preset, YAML file, or baseline (static, flow); repeated: side by side. \\[default: compact]",
        rich_help_panel=_SETTINGS,
    ),
]
Results = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="DIR",
        help="Score these results, whoever made them, a folder per clip; repeated: side by side.",
        rich_help_panel=_RUNNING,
    ),
]
Jobs = Annotated[
    int, typer.Option(min=1, metavar="N", help="Processes that run a clip each.", rich_help_panel=_RUNNING)
]
Threads = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Threads of each process. \\[default: its share]", rich_help_panel=_RUNNING),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on: keep the clips that are finished.", rich_help_panel=_RUNNING)
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="DIR",
        help="Folder of results, scores and report. \\[default: DATASET_results; only printed for --results]",
        rich_help_panel=_OUTPUT,
        show_default=False,
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Remove what an earlier evaluation wrote there.", rich_help_panel=_OUTPUT)
]
NoReport = Annotated[
    bool, typer.Option("--no-report", help="Draw no plots and write no report.html.", rich_help_panel=_OUTPUT)
]

_EXAMPLES = (
    "Examples:\n\n"
    "propagate evaluate davis --data DAVIS --year 2017 --config compact --config flow -o out\n\n"
    "propagate evaluate davis --data DAVIS --year 2016 --results masks_of_somebody"
)

app = typer.Typer(
    help="Run presets and baselines on a data set and score them by its official rules, or score existing results.",
    no_args_is_help=True,
)


def load_davis(
    data: Data,
    year: Annotated[
        Literal["2016", "2017"],
        typer.Option(help="2016: one object; 2017: several.", rich_help_panel=_DATA, show_default=False),
    ],
    split: Annotated[
        str, typer.Option(metavar="NAME", help="val, train, or all that is there.", rich_help_panel=_DATA)
    ] = "val",
    sequences: Sequences = None,
    resolution: Resolution = "480p",
) -> "Benchmark":
    """Masks: DAVIS 2016 and 2017, J and F."""
    from propagate.benchmarks.davis.clips import load_davis

    number: Literal[2016, 2017] = 2016 if year == "2016" else 2017
    return load_davis(data, year=number, split=split, sequences=sequences or (), resolution=resolution)


def load_jhmdb(
    data: Data,
    protocol: Annotated[
        Literal["videowalk", "strict"],
        typer.Option(
            help="videowalk: as published scores; strict: lost joints are wrong.",
            rich_help_panel=_DATA,
            show_default=False,
        ),
    ],
    split: Annotated[int, typer.Option(min=1, max=3, metavar="N", help="Test split.", rich_help_panel=_DATA)] = 1,
    sequences: Sequences = None,
) -> "Benchmark":
    """Human poses: JHMDB, PCK."""
    from propagate.benchmarks.jhmdb.clips import load_jhmdb

    return load_jhmdb(data, split=split, protocol=protocol, sequences=sequences or ())


def load_badja(
    data: Data,
    davis: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Folder of DAVIS, which has its frames and masks.",
            rich_help_panel=_DATA,
            show_default=False,
        ),
    ],
    sequences: Sequences = None,
    resolution: Resolution = "480p",
) -> "Benchmark":
    """Animals' joints: BADJA, PCK."""
    from propagate.benchmarks.badja.clips import load_badja

    return load_badja(data, davis=davis, sequences=sequences or (), resolution=resolution)


def choose(
    configs: Configs = None,
    assignments: options.Assignments = None,
    device: options.Device = None,
    max_memory: options.MaxMemory = None,
    offline: options.Offline = False,
    yes: options.Yes = False,
    results: Results = None,
    jobs: Jobs = 1,
    threads: Threads = None,
    resume: Resume = False,
    output: Output = None,
    overwrite: Overwrite = False,
    no_report: NoReport = False,
) -> "Choices":
    """The options that all data sets share.

    Raises:
        UsageError: a name that no preset and no baseline has; the data set has not been looked at yet.
    """
    from propagate.app.evaluate.evaluation import Choices
    from propagate.benchmarks.running.methods import check_name

    for config in configs or ():
        check_name(config)
    return Choices(
        configs=configs or (),
        results=results or (),
        assignments=with_max_memory(assignments or (), max_memory),
        device=device,
        output=output,
        jobs=jobs,
        threads=threads,
        resume=resume,
        overwrite=overwrite,
        report=not no_report,
    )


def with_max_memory(assignments: Sequence[str], size: str | None) -> Sequence[str]:
    """`--set` with `--max-memory`, where that is given, for every preset."""
    return assignments if size is None else [*assignments, f"max_memory={json.dumps(size)}"]


def _messages(quiet: options.Quiet = False, verbose: options.Verbose = 0) -> None:
    """The options that all commands share."""


def command(
    load: Callable[..., "Benchmark"], choose: Callable[..., Any], act: Callable[[Terminal, "Benchmark", Any], int]
) -> Callable[..., None]:
    """The command that does something on a data set: its options are those of `load`, of `choose` and of `_messages`.

    Args:
        load: the data set, from its options; its docstring is the command's help.
        choose: what the user asked for, from the other options.
        act: does it; gives the exit code.
    """
    parts = {part: inspect.signature(part).parameters for part in (load, choose, _messages)}

    def on_data_set(**given: Any) -> None:
        with reporting(quiet=given["quiet"], verbose=given["verbose"]) as terminal:
            choices = choose(**{name: given[name] for name in parts[choose]})
            benchmark = load(**{name: given[name] for name in parts[load]})
            if code := act(terminal, benchmark, choices):
                raise typer.Exit(code)

    on_data_set.__doc__ = load.__doc__
    everything = [parameter for part in parts.values() for parameter in part.values()]
    # options that must be given come first, as a signature wants it
    everything.sort(key=lambda parameter: parameter.default is not inspect.Parameter.empty)
    on_data_set.__signature__ = inspect.Signature(everything)  # type: ignore[attr-defined]
    return on_data_set


def _evaluate(terminal: Terminal, benchmark: "Benchmark", choices: "Choices") -> int:
    from propagate.app.evaluate.evaluation import evaluate

    return evaluate(terminal, benchmark, choices)


app.command("davis", epilog=_EXAMPLES)(command(load_davis, choose, _evaluate))
app.command("jhmdb")(command(load_jhmdb, choose, _evaluate))
app.command("badja")(command(load_badja, choose, _evaluate))
