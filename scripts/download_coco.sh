#!/usr/bin/env bash
# Fetch COCO 2017 (train, val, annotations: about 20 GB, twice that while unpacking) into DIR.
#
#   scripts/download_coco.sh [DIR]      DIR is data/coco by default
#
# Safe to call again: finished parts are skipped, a broken download goes on where it stopped.
set -euo pipefail
target="${1:-data/coco}"
mkdir -p "$target"
cd "$target"
fetch() { # URL, and a path that exists once it is unpacked
  if [ -e "$2" ]; then
    echo "$2 is there"
    return
  fi
  local archive="${1##*/}"
  echo "fetching $archive ..."
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
