#!/usr/bin/env bash
# Installs what the build and its checks need beside Rust, where it is missing (Debian, Ubuntu):
# a C compiler (for the cryptographic library, and as linker), Python (for the format check), and
# Debian's boto3, by which the S3 gateway is tested.
set -euo pipefail

missing=()
command -v cc >/dev/null || missing+=(gcc libc6-dev)
python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3 python3-venv)
/usr/bin/python3 -c 'import boto3' 2>/dev/null || missing+=(python3-boto3)
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
  echo "Please install: ${missing[*]} (this script knows apt-get only)" >&2
  exit 1
fi
as_root=()
[ "$(id -u)" -eq 0 ] || as_root=(sudo)
"${as_root[@]}" apt-get update -q
"${as_root[@]}" apt-get install -y -q --no-install-recommends "${missing[@]}"
