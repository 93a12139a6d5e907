"""What an index and its loader's processes cost in memory, as Linux accounts for it."""

import copy
import gc
import json
import multiprocessing
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from torch.utils.data import Dataset

from retinanet.batch import Batch
from retinanet.categories import Categories
from retinanet.config import override_config
from retinanet.data.boxes_used import take_census
from retinanet.data.coco.annotations import Annotations, FileNames
from retinanet.data.coco.index import open_annotations
from retinanet.data.loader import training_loader
from retinanet.data.sampler import Plan
from retinanet.engine.splits import Split, build_dataset, training_plan
from retinanet.schema import Config

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not Path("/proc/self/smaps_rollup").exists(), reason="the system does not tell"
    ),
]
MB = 2**20


def generated(images: int, boxes_each: int) -> Annotations:
    """Return an index without a JSON file."""
    boxes = images * boxes_each
    return Annotations(
        path=Path("train.json"),
        categories=Categories(ids=(1,), names=("thing",)),
        image_ids=np.arange(images),
        sizes=np.full((images, 2), 8),
        file_names=FileNames.of([f"{i % 50}.jpg" for i in range(images)]),
        offsets=np.arange(images + 1) * boxes_each,
        annotation_ids=np.arange(boxes),
        boxes=np.tile(np.array([1, 1, 5, 5], np.float32), (boxes, 1)),
        labels=np.zeros(boxes, np.int32),
        crowd=np.zeros(boxes, bool),
        areas=np.full(boxes, 25.0),
        fingerprint="",
    )


OPENING = """
import pickle, sys
from pathlib import Path
from retinanet.data.coco.annotations import map_annotations

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

before = peak()
annotations = map_annotations(Path(sys.argv[1]), Path("train.json"))
annotations = pickle.loads(pickle.dumps(annotations))
assert float(annotations.boxes[-1, 2]) == 5
print(peak() - before)
"""


@pytest.mark.parametrize("boxes", [2_500_000, 6_000_000])
def test_a_worker_that_opens_an_index_adds_nothing_to_speak_of(tmp_path: Path, boxes: int) -> None:
    """Of one that is checked for damage on the way (under 128 MB), and of a larger one.

    What counts is all that ever was resident, pages that others share and checksums included.
    """
    place = tmp_path / "index"
    generated(boxes // 10, 10).save(place, {})
    assert (place.stat().st_size > 128 * MB) == (boxes > 3_000_000)
    done = subprocess.run(
        [sys.executable, "-c", OPENING, str(place)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) * 1024 < 8 * MB


IMAGES = 50_000
BATCH = 250


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """50,000 images with a box each; 50 files stand for them."""
    folder = tmp_path_factory.mktemp("many")
    for i in range(50):
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)
        cv2.imwrite(str(folder / f"{i}.jpg"), pixels)
    images = [
        {"id": i, "file_name": f"{i % 50}.jpg", "width": 8, "height": 8} for i in range(IMAGES)
    ]
    boxes = [
        {"id": i, "image_id": i, "category_id": 1, "bbox": [1, 1, 5, 5]} for i in range(IMAGES)
    ]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "train.json").write_text(json.dumps(content))
    return folder


class Pixels(Dataset):
    """Does a data set's whole work, but leaves the targets behind: sending them takes longest."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def __getitem__(self, plan: Plan) -> tuple[Batch, list[str]]:
        batch, bad = self._dataset[plan]
        gc.collect()  # in a long training its turn comes; it looks at all that is not frozen
        return replace(batch, targets=[]), bad


class Records(Dataset):
    """What most detectors do: the annotations are a list of dicts that the workers inherit."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        outlines = np.random.default_rng(0).uniform(0, 8, (IMAGES, 16)).tolist()
        self._records = [
            {"image_id": i, "file_name": f"{i % 50}.jpg", "segmentation": [outlines[i]]}
            for i in range(IMAGES)
        ]

    def __getitem__(self, plan: Plan) -> tuple[Batch, list[str]]:
        for sample in plan.samples:
            copy.deepcopy(self._records[sample.row])
        return self._dataset[Plan(samples=(), canvas=plan.canvas)]


def memory() -> float:
    """Return the MB of this process and its workers; what they share counts once (PSS).

    Without pages of files: those of libraries are shared with whatever else runs at the time, and
    the index's are in memory once for all.
    """
    pids = ["self", *(child.pid for child in multiprocessing.active_children())]
    assert len(pids) in (1, 5)
    lines = [x for pid in pids for x in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()]
    kinds = ("Pss_Anon:", "Pss_Shmem:")
    return sum(int(line.split()[1]) for line in lines if line.startswith(kinds)) / 1024


def follow(way: type[Pixels] | type[Records], folder: Path, halves: int) -> Iterator[float]:
    """Yield the MB before a loader with four workers, after ten steps, after each half epoch."""
    options = ["data.short_side=8", "data.long_side=32", f"train.batch_size={BATCH}"]
    config = override_config(Config(), options)
    annotations = open_annotations(folder / "train.json")
    assert annotations.mapped_from is not None
    census = take_census(annotations, min_box_side=1)
    split = Split(annotations=annotations, images=folder, min_box_side=1.0, census=census)
    half = IMAGES // BATCH // 2
    loader = training_loader(
        way(build_dataset(config, split, augment=False, losses=False)),
        training_plan(config, split),
        start=0,
        stop=halves * half + 20,  # the workers are at work to the end
        rank=0,
        ranks=1,
        micro_batch=BATCH,
        workers=4,
        pin_memory=False,
    )
    yield memory()
    for done, step in enumerate(loader, 1):
        assert step.images in (BATCH, 0) and not step.bad
        if done == 10 or done % half == 0:
            yield memory()
        if done == halves * half:
            return


def followed(way: str, folder: Path, halves: int) -> list[float]:
    """Return what `follow` yields in a process of its own, as a training is one."""
    command = [sys.executable, "-W", "ignore", __file__, way, str(folder), str(halves)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_memory_stays_flat_over_epochs(folder: Path) -> None:
    """Four workers look up, decode and batch 50,000 images, twice over."""
    alone, start, half, first, *later = followed("Pixels", folder, 4)
    assert start - alone < 160, (alone, start)  # a copy of the heap for each would be 60 MB more
    assert first - start < 24, (start, half, first)  # what libraries allocate at first use
    assert max(later) - first < 4, (first, later)


def test_a_list_of_records_would_be_copied_to_every_worker(folder: Path) -> None:
    """The measurement detects what it should: reading a record writes its reference count."""
    _, start, half, first = followed("Records", folder, 2)
    assert first - start > 60, (start, half, first)


if __name__ == "__main__":
    name, place, count = sys.argv[1:]
    print(json.dumps(list(follow(globals()[name], Path(place), int(count)))))
