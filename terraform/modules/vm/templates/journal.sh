#!/bin/bash
# Copies what the node's units write to the journal into a file, which the CloudWatch agent reads. Nothing is lost: the journal keeps it, and
# the cursor says how far the file is. After a crash some lines may be there twice.
set -euo pipefail

directory=${LOGS_DIRECTORY:?is set by the unit}
file=$directory/node.log
touch "$file"
while true; do
  journalctl --quiet --no-pager --output=cat --unit=duramen.service --unit=duramen-verify.service --unit=duramen-verify-all.service \
    --cursor-file="$directory/cursor" >>"$file"
  # The agent reads a file that was moved to its end.
  if [ "$(stat -c %s "$file")" -gt $((64 << 20)) ]; then
    mv "$file" "$file.1"
    touch "$file"
  fi
  sleep 5
done
