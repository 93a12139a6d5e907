r"""Find image files whose names are similar to those in the records.

File names change when annotations are exported or moved: a folder is added or lost, paths of
another machine or URLs are written, `\` replaces `/`. Suffix, case and Unicode form change, too.
A name is matched with a file only if it cannot mean another one. It must fit one file best, no
other name may fit that file, and no record may name the file already. The caller asks the user
first.
"""

from __future__ import annotations

import posixpath
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from retinanet.data.images.name_changes import (
    NO_IMAGES,
    Match,
    closest,
    describe_ways,
    match_file,
)
from retinanet.data.images.name_parts import FilePath, Keys, may_replace, take_apart
from retinanet.errors import some_of

_COPIES_LOOKED_FOR = 1000
"""Images found by name whose copies (masks, thumbnails) are looked for."""
_MAX_NAMESAKES = 8
"""Files with one name in several folders, such as video frames; more of them mean nothing."""
_WAYS_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Renames:
    """The files that names mean; false if there are none."""

    files: dict[str, str]
    """Each name that was found -> its file, relative to the folder, with `/`."""
    sought: int
    """Number of names that were looked for."""
    ways: tuple[tuple[int, str], ...]
    """Number of files found per change (`without the prefix 'images/'`), most first."""
    unclear: dict[str, str]
    """Each name that may mean a file but is not clear -> the reason."""
    elsewhere: tuple[int, str] | None
    """Number of other names that are found in one subfolder, and the subfolder."""

    def __bool__(self) -> bool:
        return bool(self.files)

    @property
    def how(self) -> str:
        """How they were found: `without the prefix 'images/'`."""
        if len(self.ways) == 1:
            return self.ways[0][1]
        ways = [f"{count:,} {way}" for count, way in self.ways[:_WAYS_NAMED]]
        return "; ".join(ways) + ("; ..." if len(self.ways) > _WAYS_NAMED else "")

    def __str__(self) -> str:
        """Return how many were found, and how: `847 of them were found without the prefix 'x/'`."""
        count = len(self.files)
        if count < self.sought:
            subject = f"{count:,} of them {'was' if count == 1 else 'were'}"
        else:
            subject = "it was" if count == 1 else f"all {count:,} were"
        return f"{subject} found{':' * (len(self.ways) > 1)} {self.how}"


def find_renamed(
    missing: Sequence[str], files: Collection[str], *, present: Collection[str] = ()
) -> Renames:
    """Find the files that missing names mean, if they cannot mean anything else.

    Args:
        missing: Names of the records whose file is missing.
        files: Image files in the folder, relative to it, with `/`.
        present: Names of the records whose file exists; no other record gets these files.
    """
    gone = frozenset(missing)  # a broken link also has such a name
    folder = _Folder([file for file in files if file not in gone])
    taken = folder.files_named(present)
    copied = folder.copies(present, taken)
    chosen: dict[str, Match] = {}
    unclear: dict[str, str] = {}
    strangers: list[str] = []
    paths: dict[str, FilePath] = {}
    fitting: dict[str, list[Match]] = {}
    names = list(dict.fromkeys(missing))
    for path, matches in folder.find(names, replace_folders=not present):
        name = path.text
        paths[name], fitting[name] = path, matches
        best = closest(matches)
        if not best:
            strangers.append(name)
        elif len(best) > 1:
            unclear[name] = f"{name!r} may be {_either([match.file for match in best])}"
        elif best[0].file in taken:
            unclear[name] = f"{name!r} may be {best[0].file!r}, which another record names"
        elif best[0].change in copied:
            unclear[name] = (
                f"{name!r} may be {best[0].file!r}, but images that were found by name also have "
                "such a file"
            )
        else:
            chosen[name] = best[0]
    records = Counter(missing)
    # A name that loses its file makes others doubtful: check again.
    while doubtful := _claimed_twice(chosen, fitting, paths, records):
        for name, text in doubtful.items():
            unclear[name] = text
            del chosen[name]
    return Renames(
        files={name: match.file for name, match in chosen.items()},
        sought=len(missing),
        ways=tuple(describe_ways(list(chosen.values()))),
        unclear=unclear,
        elsewhere=folder.find_namesakes(strangers),
    )


def _claimed_twice(
    chosen: dict[str, Match],
    fitting: dict[str, list[Match]],
    paths: dict[str, FilePath],
    records: Counter[str],
) -> dict[str, str]:
    """Return the chosen names whose file another record may mean, each with a message.

    Args:
        chosen: The file of each name.
        fitting: All files that each name may mean, including its own.
        paths: Parts of each name.
        records: Number of records with each name.
    """
    # A name that fits no file may have lost its folders: it may mean a file with the same end.
    claims: dict[Keys | str, list[str]] = defaultdict(list)
    for name, matches in fitting.items():
        for match in matches:
            claims[match.file].append(name)
        for keys, _ in paths[name].spellings():
            for kept in range(1, len(keys) + 1):
                claims[keys[-kept:]].append(name)

    def is_rival(name: str, match: Match) -> bool:
        """Whether a name may mean the file; not if it has its own file after the same change."""
        own = chosen.get(name)
        return own is None or own.file == match.file or own.rule != match.rule

    doubtful = {}
    for name, match in chosen.items():
        # If other files fit as well, a name that shares only the last part may mean this one.
        kept = match.kept if len(fitting[name]) == 1 else 1
        others = {*claims[match.file], *claims[match.keys[-kept:]]}
        names = [other for other in others if is_rival(other, match)]
        if records[name] > 1:
            doubtful[name] = f"{name!r}, in {records[name]} records, may be {match.file!r}"
        elif len(names) > 1:
            doubtful[name] = f"{_either(names, 'and')} may be {match.file!r}"
    return doubtful


def _either(names: list[str], word: str = "or") -> str:
    shown = [repr(name) for name in sorted(names)]
    return f" {word} ".join(shown) if len(shown) < 4 else some_of(shown, 3)


class _Folder:
    """The files of a folder, found by parts of their names."""

    def __init__(self, files: Collection[str]) -> None:
        self._files = [(file, take_apart(file)) for file in files if _is_text(file)]
        self._names = frozenset(files)
        self._by_path: dict[Keys, list[int]] = defaultdict(list)
        self._by_last_part: dict[str, list[int]] = defaultdict(list)
        for place, (_, path) in enumerate(self._files):
            self._by_path[path.keys].append(place)
            self._by_last_part[path.keys[-1]].append(place)
        for last, places in self._by_last_part.items():
            if len(places) > _MAX_NAMESAKES:
                self._by_last_part[last] = []

    def files_named(self, names: Collection[str]) -> set[str]:
        """Return the files that have these names, on a disk that may ignore case."""
        taken = set()
        for name in names:
            plain = posixpath.normpath(name)
            if plain in self._names:
                taken.add(plain)
            else:
                places = self._by_path.get(take_apart(plain).keys, [])
                taken |= {self._files[place][0] for place in places}
        return taken

    def copies(
        self, names: Collection[str], taken: set[str]
    ) -> set[tuple[frozenset[str], tuple[str, str]]]:
        """Return how the names of existing images differ from those of files without a record."""
        some = sorted(names)[:: len(names) // _COPIES_LOOKED_FOR + 1]
        return {
            match.change
            for name, matches in self.find(some, replace_folders=False)
            for match in matches
            if match.file not in taken
        }

    def find(
        self, names: Sequence[str], *, replace_folders: bool
    ) -> Iterator[tuple[FilePath, list[Match]]]:
        """Yield the parts of each name and all files that it may mean.

        Args:
            names: Names of records.
            replace_folders: Whether folders of another machine may mean any folder here.
        """
        paths = [take_apart(name) for name in names]
        deeper: dict[Keys, list[int]] = {k: [] for path in paths for k, _ in path.spellings()}
        for place, (_, path) in enumerate(self._files):
            for kept in range(1, len(path.keys)):
                if path.keys[-kept:] in deeper:
                    deeper[path.keys[-kept:]].append(place)
        for path in paths:
            matches = []
            for keys, upload in path.spellings():
                kept_parts = {place: len(keys) for place in deeper[keys]}
                for kept in range(1, len(keys) + 1):
                    kept_parts |= dict.fromkeys(self._by_path.get(keys[-kept:], ()), kept)
                if replace_folders and path.is_absolute:
                    for place in self._by_last_part.get(keys[-1], ()):
                        if may_replace(path, self._files[place][1]):
                            kept_parts.setdefault(place, 1)
                matches += [
                    match_file(path, *self._files[place], kept, upload=upload)
                    for place, kept in kept_parts.items()
                ]
            yield path, [match for match in matches if match is not None]

    def find_namesakes(self, names: list[str]) -> tuple[int, str] | None:
        """Return the folder with most files of these names, and how many there are."""
        counts: Counter[str] = Counter()
        for name in names:
            keys = take_apart(name).keys[-1:]
            places = self._by_last_part.get(keys[0], ()) if keys else ()
            paths = [self._files[place] for place in places]
            counts.update(
                {
                    posixpath.dirname(file)
                    for file, path in paths
                    if len(path.keys) > 1 and NO_IMAGES.isdisjoint(path.keys[:-1])
                }
            )
        return next(((count, folder) for folder, count in counts.most_common(1)), None)


def _is_text(file: str) -> bool:
    """Whether a name can be written to a file: names on a disk need not be valid Unicode."""
    return file == file.encode(errors="ignore").decode()
