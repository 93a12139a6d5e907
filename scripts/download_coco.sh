#!/usr/bin/env bash
# Download COCO 2017 (train, val, annotations) into DIR: about 20 GB, and twice that while unpacking.
#
#   scripts/download_coco.sh [DIR]      DIR is data/coco by default
#
# Safe to run again: finished parts are skipped, and a broken download continues where it stopped.
set -euo pipefail
target="${1:-data/coco}"
mkdir -p "$target"
cd "$target"
fetch() { # URL, and a path that exists once it is unpacked
  if [ -e "$2" ]; then
    echo "$2 already exists"
    return
  fi
  local archive="${1##*/}"
  echo "downloading $archive ..."
  curl --fail --location --continue-at - --output "$archive" "$1"
  unzip -qo "$archive" -d unpacking
  mv unpacking/* .
  rmdir unpacking
  rm "$archive"
}
fetch http://images.cocodataset.org/annotations/annotations_trainval2017.zip annotations
fetch http://images.cocodataset.org/zips/val2017.zip val2017
fetch http://images.cocodataset.org/zips/train2017.zip train2017
echo "done: $(pwd)"
