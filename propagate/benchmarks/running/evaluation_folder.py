"""The folder of an evaluation, and which of its content the evaluation wrote."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from propagate.benchmarks.running.clip_folder import foreign_files, remove_clip, remove_unfinished
from propagate.benchmarks.running.records import (
    MANIFEST,
    RECORD,
    Manifest,
    ResultRecord,
    check_inside,
    read_manifest,
    read_record,
)
from propagate.benchmarks.scoring import listed
from propagate.errors import UsageError
from propagate.files.atomic import atomic_path, remove_leftovers, write_error
from propagate.files.lock import LOCK, locked
from propagate.files.names import is_plain_name, real_path
from propagate.formats import prepare_output
from propagate.formats.output.folder import is_vacant
from propagate.formats.output.run_record import json_text

_MOVE = "Move them away, or choose another --output."


class Output:
    """The output folder of an evaluation.

    The clips of a single method lie in the folder itself, those of several in a folder per method; when `resume` adds
    methods to a single one, its clips stay where they are. A hidden manifest lists all files before they are written;
    other files are never removed or replaced.

    Raises:
        UsageError: the folder is not empty and neither `resume` nor `overwrite` is given; both are; the name of a
            method is not a plain name; or, to resume, a method is missing, or the folder of a new one is a clip.
        InputError: the folder cannot be written, or its manifest is damaged.
    """

    def __init__(self, folder: Path, methods: Iterable[str], *, resume: bool = False, overwrite: bool = False) -> None:
        if resume and overwrite:
            raise UsageError("--resume and --overwrite do not go together.", "Give one of them.")
        if invalid := [name for name in methods if not is_plain_name(name)]:
            raise UsageError(
                f"Results cannot be stored under the name {invalid[0][:80]!r}.", "Rename the file or folder."
            )
        self.folder, self.keeps_clips = folder, not overwrite
        self._methods, self._resume = tuple(methods), resume
        self._new = [place for place in (folder, *folder.parents) if not place.exists()]
        self._load()

    def _load(self) -> None:
        """Read the manifest and compare it with the options."""
        folder, resume = self.folder, self._resume
        if not resume and self.keeps_clips and folder.is_dir() and not is_vacant(folder):
            raise UsageError(
                f"The output folder {folder} is not empty.",
                "Choose another with --output, continue with --resume, or replace its content with --overwrite.",
            )
        prepare_output(folder, overwrite=True)
        before = read_manifest(folder) or Manifest()
        self._files, self._clips = set(before.files), set(before.clips)
        then = before.methods
        alone = then if resume and then else self._methods
        self._at_top = before.at_top if resume and len(then) > 1 else alone[0] if len(alone) == 1 else None
        places = {Path(clip).parts[0] for clip in self._clips} if resume and self._at_top is not None else set()
        if taken := sorted(places & {name for name in self._methods if name != self._at_top and name not in then}):
            raise UsageError(
                f"{folder / taken[0]} holds a clip of {self._at_top}; it would be the folder of the method {taken[0]}.",
                "Choose another with --output.",
            )
        if resume and (dropped := [name for name in then if name not in self._methods]):
            raise UsageError(
                f"{folder} also holds the scores of {listed(dropped)}, which would be dropped.",
                "Give these methods or values too, choose another folder with --output (-o), or replace everything "
                "with --overwrite.",
            )

    @contextmanager
    def lock(self) -> Iterator[tuple[str, ...]]:
        """Lock the folder for one run, remove temporary files of killed runs, and yield notes for the user.

        Raises:
            UsageError, InputError: another run writes into the folder, or has changed it since it was read.
        """
        try:
            with locked(self.folder) as notes:
                self._load()
                check_inside(self.folder, self._files)
                written = {(self.folder / name).parent for name in self._files}
                for place in {self.folder, *written, *map(self.of, self._methods)}:
                    if place == self.folder or not place.is_symlink():
                        remove_leftovers(place)
                yield notes
        finally:
            self._remove_new()

    def of(self, method: str) -> Path:
        """Return the folder of a method's clips and tables."""
        return self.folder if method == self._at_top else self.folder / method

    def protect(self, inputs: Iterable[Path]) -> None:
        """Raise a UsageError where an input lies among the files that will be replaced."""
        own = {real_path(self.folder / name) for name in (*self._files, *self._clips)}
        for path in inputs:
            if own & {real_path(path), *real_path(path).parents}:
                raise UsageError(f"The input {path} would be replaced.", "Choose another --output.")

    def clear(self, clips: Iterable[Path]) -> None:
        """Remove unfinished clips, clips that will run again, and all scores, which would be out of date.

        Args:
            clips: folders of the clips that will run.

        Raises:
            UsageError: there are other files among them; nothing was removed.
            InputError: a record is damaged or leads out of the folder, and nothing was removed; or a file cannot be
                removed.
        """
        coming = {self._name(clip) for clip in clips}
        known = coming | self._clips
        going = coming if self.keeps_clips else known
        check_inside(self.folder, self._files)
        check_inside(self.folder, (f"{name}/{RECORD}" for name in known))
        found = {name: read_record(self.folder / name, ResultRecord) for name in sorted(going)}
        records = {self.folder / name: record for name, record in found.items() if record is not None}
        for folder, record in records.items():
            check_inside(folder, record.files)
            if foreign := foreign_files(folder, record):
                raise UsageError(
                    f"{folder} also holds files that an evaluation did not write: {listed(foreign)}.", _MOVE
                )
        try:
            for folder, record in records.items():
                remove_clip(folder, record)
            for name in known:
                remove_unfinished(self.folder / name)
            for name in self._files:
                (self.folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise write_error(self.folder, error) from error
        self._remove_empty([*self._files, *going])
        self._files, self._clips = set(), (self._clips if self.keeps_clips else set()) | coming
        self._write()

    def register(self, files: Iterable[Path]) -> None:
        """Add files to the manifest before they are written.

        Raises:
            UsageError: a file exists and is not in the manifest, or lies in the folder of a clip.
            InputError: a path leads through a link.
        """
        names = sorted({self._name(path) for path in files})
        check_inside(self.folder, names)
        if taken := [name for name in names if self._clips & {parent.as_posix() for parent in Path(name).parents}]:
            raise UsageError(f"{self.folder / taken[0]} would lie in the folder of a clip.", "Choose another --output.")
        if foreign := [name for name in names if name not in self._files and (self.folder / name).exists()]:
            raise UsageError(
                f"{self.folder} holds files that an evaluation did not write: {listed(foreign)}.",
                "Move them away, and continue with --resume.",
            )
        self._files.update(names)
        self._write()

    def discard_if_empty(self) -> bool:
        """Remove the folder and its new parents, and return True, where no clip and no file was written."""
        if not self.folder.is_dir():
            return True
        self._remove_empty(self._clips)
        if {path.name for path in self.folder.iterdir()} - {MANIFEST, LOCK}:
            return False
        (self.folder / MANIFEST).unlink(missing_ok=True)
        self._remove_new()
        return True

    def _remove_new(self) -> None:
        """Remove the folder and its parents where they are new and empty."""
        for place in self._new:
            with suppress(OSError):
                place.rmdir()

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _remove_empty(self, names: Iterable[str]) -> None:
        """Remove empty folders between the output folder and these paths."""
        parents = {parent for name in names for parent in Path(name).parents if parent != Path()}
        for parent in sorted(parents, reverse=True):
            with suppress(OSError):
                (self.folder / parent).rmdir()

    def _write(self) -> None:
        files, clips = sorted(self._files), sorted(self._clips)
        content = {"methods": self._methods, "at_top": self._at_top, "files": files, "clips": clips}
        with atomic_path(self.folder / MANIFEST) as temporary:
            temporary.write_text(json_text(content), encoding="utf-8")
