#!/bin/bash
# Ends the controller that `up.sh FOLDER` started, by its process id, with exactly its own children. One that was
# adopted goes on. The folder stays: the next start takes seconds.
set -euo pipefail
[ $# = 1 ] || { echo "usage: $0 FOLDER" >&2; exit 2; }
LAB=$1
if [ -e "$LAB/adopted" ]; then
  echo "ad: the controller in $(cat "$LAB/adopted") was adopted and goes on"
  exit 0
fi
[ -s "$LAB/samba.pid" ] || { echo "ad: not running"; exit 0; }
PID=$(cat "$LAB/samba.pid")
rm -f "$LAB/samba.pid"
if ! tr '\0' ' ' <"/proc/$PID/cmdline" 2>/dev/null | grep -q '\bsamba\b'; then
  echo "ad: not running"
  exit 0
fi

descendants() {
  local child
  for child in $(cat "/proc/$1"/task/*/children 2>/dev/null); do
    echo "$child"
    descendants "$child"
  done
}
alive() {
  local pid
  for pid in "$@"; do
    if kill -0 "$pid" 2>/dev/null; then echo "$pid"; fi
  done
}

all="$PID $(descendants "$PID")"
kill -TERM "$PID"
for _ in $(seq 50); do
  # shellcheck disable=SC2086
  left=$(alive $all)
  [ -n "$left" ] || break
  sleep 0.1
done
for pid in $left; do kill -TERM "$pid" 2>/dev/null || true; done
[ -z "$left" ] || sleep 0.3
# shellcheck disable=SC2086
for pid in $(alive $left); do kill -KILL "$pid" 2>/dev/null || true; done
echo "ad: down"
