r"""Image files that are there under nearly the name that a record gives.

Annotations travel, and their file names change on the way: a folder is put in front or lost, paths
of another machine or addresses are written, `\` stands for `/`; suffix, case and Unicode form
change. A name is taken for a file only where nothing else can be meant: it fits one file best, no
other name fits that file, and no record names the file already. Whoever calls asks the user first.
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
"""Images that are there as named, whose copies (masks, thumbnails) are looked for."""
_MAX_NAMESAKES = 8
"""Files of a name in several folders, such as frames of videos: more of them tell nothing."""
_WAYS_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Renames:
    """The files that names mean; false where there is none."""

    files: dict[str, str]
    """Of each name that was found: the file, relative to the folder, with `/`."""
    sought: int
    """Names that were looked for."""
    ways: tuple[tuple[int, str], ...]
    """How many were found in each way (`without the prefix 'images/'`), most first."""
    unclear: dict[str, str]
    """Of each name that has a counterpart but was not found: why, in words."""
    elsewhere: tuple[int, str] | None
    """How many of the others have a namesake in one folder of the folder, and its name."""

    def __bool__(self) -> bool:
        return bool(self.files)

    @property
    def how(self) -> str:
        """Say in which way they were found: `without the prefix 'images/'`."""
        if len(self.ways) == 1:
            return self.ways[0][1]
        ways = [f"{count:,} {way}" for count, way in self.ways[:_WAYS_NAMED]]
        return "; ".join(ways) + ("; .." if len(self.ways) > _WAYS_NAMED else "")

    def __str__(self) -> str:
        """Say how many are there, and how: `847 of them are there without the prefix 'images/'`."""
        count = len(self.files)
        if count < self.sought:
            subject = f"{count:,} of them {'is' if count == 1 else 'are'}"
        else:
            subject = "it is" if count == 1 else f"all {count:,} are"
        return f"{subject} there{':' * (len(self.ways) > 1)} {self.how}"


def find_renamed(
    missing: Sequence[str], files: Collection[str], *, present: Collection[str] = ()
) -> Renames:
    """Find the files that missing names mean, where nothing else can be meant.

    Args:
        missing: names of the records whose file is not there.
        files: image files of the folder, relative to it, with `/`.
        present: names of the records whose file is there; no other record gets their files.
    """
    gone = frozenset(missing)  # a link to nothing has such a name, too
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
                f"{name!r} may be {best[0].file!r}, but images that are there as named have such "
                "a file, too"
            )
        else:
            chosen[name] = best[0]
    records = Counter(missing)
    # A name that loses its file leaves others in doubt: they are looked at once more.
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
    """Return the chosen names whose file another record may mean, and what to say of each.

    Args:
        chosen: the file of each name.
        fitting: all files that each name fits in some way, its own or not.
        paths: each name, taken apart.
        records: how many have each name.
    """
    # A name that fits no file may have lost its folders: it may mean one with the same end.
    claims: dict[Keys | str, list[str]] = defaultdict(list)
    for name, matches in fitting.items():
        for match in matches:
            claims[match.file].append(name)
        for keys, _ in paths[name].spellings():
            for kept in range(1, len(keys) + 1):
                claims[keys[-kept:]].append(name)

    def is_rival(name: str, match: Match) -> bool:
        """Whether a name may mean a file; not if it changed just alike, and has its own."""
        own = chosen.get(name)
        return own is None or own.file == match.file or own.rule != match.rule

    doubtful = {}
    for name, match in chosen.items():
        # Where other files fit, too, a name that shares only the last part may mean this one.
        kept = match.kept if len(fitting[name]) == 1 else 1
        others = {*claims[match.file], *claims[match.keys[-kept:]]}
        names = [other for other in others if is_rival(other, match)]
        if records[name] > 1:
            doubtful[name] = f"{name!r} of {records[name]} records may be {match.file!r}"
        elif len(names) > 1:
            doubtful[name] = f"{_either(names, 'and')} may be {match.file!r}"
    return doubtful


def _either(names: list[str], word: str = "or") -> str:
    shown = [repr(name) for name in sorted(names)]
    return f" {word} ".join(shown) if len(shown) < 4 else some_of(shown, 3)


class _Folder:
    """The files of a folder, found by what their names have in common with others."""

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
        """Return the files that names mean as they are, on a disk that may ignore case."""
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
        """Return in what names of images that are there differ from those of files of no record."""
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
        """Yield each name, taken apart, and all files that it may mean.

        Args:
            names: of records.
            replace_folders: the folders of another machine may stand for any of this folder.
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
        """Return how many names have the same last part as a file of one folder, and which."""
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
    """Whether a name can be written to a file: a disk may hold names that are no Unicode."""
    return file == file.encode(errors="ignore").decode()
