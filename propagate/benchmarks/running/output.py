"""The folder of an evaluation, and what in it is the evaluation's own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
from propagate.errors import UsageError
from propagate.files.atomic import atomic_path, remove_leftovers, write_error
from propagate.files.lock import LOCK, locked
from propagate.files.names import is_plain_name, real_path
from propagate.formats import prepare_output
from propagate.formats.output.folder import is_vacant
from propagate.formats.output.run_record import json_text


class Output:
    """A folder to evaluate into.

    The clips of one method lie in it directly, those of several in a folder per method; where others join one method
    with `resume`, its clips stay where they are. A hidden file lists what an evaluation writes here, and is written
    before the things themselves; nothing else is ever removed or replaced.

    Args:
        folder: is created where it does not exist.
        methods: names of all methods.
        resume: keep finished clips.
        overwrite: remove what an earlier evaluation wrote.

    Attributes:
        folder: the folder.
        keeps_clips: finished clips are kept.

    Raises:
        UsageError: the folder is not empty and neither is given; both are; a method's name cannot be that of a folder;
            or, to resume, a method of before is not among the methods, or a new one is called like a clip that lies
            where its folder would be.
        InputError: it cannot be written, or its manifest is damaged.
    """

    def __init__(self, folder: Path, methods: Sequence[str], *, resume: bool = False, overwrite: bool = False) -> None:
        if resume and overwrite:
            raise UsageError("--resume and --overwrite do not go together.", "Give one of them.")
        if wrong := [name for name in methods if not is_plain_name(name)]:
            raise UsageError(
                f"Results cannot be stored under the name {wrong[0][:80]!r}.", "Rename the file or folder."
            )
        self.folder, self.keeps_clips = folder, not overwrite
        self._methods = tuple(methods)
        self._resume, self._overwrite = resume, overwrite
        self._new = [place for place in (folder, *folder.parents) if not place.exists()]
        self._load()

    def _load(self) -> None:
        """Read what the folder holds, and how that goes together with what was asked for."""
        folder, resume = self.folder, self._resume
        if not (resume or self._overwrite) and folder.is_dir() and not is_vacant(folder):
            raise UsageError(
                f"The output folder {folder} is not empty.",
                "Choose another with --output, go on with --resume, or replace what is in it with --overwrite.",
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
                f"{folder} also holds the scores of {_listed(dropped)}, which would be dropped.",
                "Give these methods or values too, choose another folder with --output (-o), or replace everything "
                "with --overwrite.",
            )

    @contextmanager
    def held(self) -> Iterator[tuple[str, ...]]:
        """Hold the folder for one run, and remove temporary files of runs that were killed.

        Yields:
            Sentences for the user; see `propagate.files.lock.locked`.

        Raises:
            InputError: another run writes into it.
            UsageError, InputError: what another run has written since it was looked at does not go together; see above.
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
        """The folder of a method's clips and tables."""
        return self.folder if method == self._at_top else self.folder / method

    def keep(self, paths: Iterable[Path]) -> None:
        """Refuse to go on where something that is read is ours, and would be removed.

        Raises:
            UsageError: names the first one.
        """
        own = {real_path(self.folder / name) for name in (*self._files, *self._clips)}
        for path in paths:
            if own & {real_path(path), *real_path(path).parents}:
                raise UsageError(f"{path} is read, and lies among what is replaced.", "Choose another --output.")

    def make_way(self, clips: Iterable[Path]) -> None:
        """Remove what is ours and stands in the way: unfinished clips, those to be run again, and all scores.

        Scores and reports are made anew in any case, and must not be taken for the new ones meanwhile.

        Args:
            clips: folders of the clips that will be run.

        Raises:
            UsageError: something that is not ours lies among them; nothing has been removed.
            InputError: a record is damaged or leads out of the folder, and nothing has been removed; or a file cannot
                be removed.
        """
        coming = {self._name(clip) for clip in clips}
        known = coming | self._clips
        going = coming if self.keeps_clips else known
        check_inside(self.folder, self._files)
        check_inside(self.folder, (f"{name}/{RECORD}" for name in known))
        found = {name: read_record(self.folder / name, ResultRecord) for name in sorted(going)}
        for name, record in found.items():
            if record is None:
                continue
            check_inside(self.folder / name, record.files)
            if foreign := foreign_files(self.folder / name, record):
                raise UsageError(
                    f"{self.folder / name} also holds files that an evaluation did not write: {_listed(foreign)}.",
                    "Move them away, or choose another --output.",
                )
        try:
            for name, record in found.items():
                if record is not None:
                    remove_clip(self.folder / name, record)
            for name in known:
                remove_unfinished(self.folder / name)
            for name in self._files:
                (self.folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise write_error(self.folder, error) from error
        self._remove_empty([*self._files, *going])
        self._files, self._clips = set(), (self._clips if self.keeps_clips else set()) | coming
        self._write()

    def claim(self, files: Iterable[Path]) -> None:
        """Say which files will be written, before they are.

        Raises:
            UsageError: one is there, and is not ours.
            InputError: the way to one leads through a link.
        """
        names = {self._name(path) for path in files}
        check_inside(self.folder, sorted(names))
        if taken := sorted(
            name for name in names if self._clips & {parent.as_posix() for parent in Path(name).parents}
        ):
            raise UsageError(f"{self.folder / taken[0]} would lie in the folder of a clip.", "Choose another --output.")
        if foreign := sorted(name for name in names - self._files if (self.folder / name).exists()):
            raise UsageError(
                f"{self.folder} holds files that an evaluation did not write: {_listed(foreign)}.",
                "Move them away, and go on with --resume.",
            )
        self._files |= names
        self._write()

    def forget_if_empty(self) -> bool:
        """Where no clip and no file was written, remove the folder again, with those parents that are new.

        Returns:
            Whether that is so. A folder that is held goes when it is let go.
        """
        if not self.folder.is_dir():
            return True
        self._remove_empty(self._clips)
        if {path.name for path in self.folder.iterdir()} - {MANIFEST, LOCK}:
            return False
        (self.folder / MANIFEST).unlink(missing_ok=True)
        self._remove_new()
        return True

    def _remove_new(self) -> None:
        """Remove the folder, and its parents, where they are new and empty."""
        for place in self._new:
            with suppress(OSError):
                place.rmdir()

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _remove_empty(self, names: Iterable[str]) -> None:
        """Remove the folders between here and those things where they hold nothing any more."""
        parents = {parent for name in names for parent in Path(name).parents if parent != Path()}
        for parent in sorted(parents, reverse=True):
            with suppress(OSError):
                (self.folder / parent).rmdir()

    def _write(self) -> None:
        content = {
            "methods": self._methods,
            "at_top": self._at_top,
            "files": sorted(self._files),
            "clips": sorted(self._clips),
        }
        with atomic_path(self.folder / MANIFEST) as temporary:
            temporary.write_text(json_text(content), encoding="utf-8")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
