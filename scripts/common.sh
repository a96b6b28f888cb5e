# shellcheck shell=bash
# Shared by the scripts beside it: messages, one lock, the space check, and the wheel download with progress.
# Sourced, never run. Refuses to do anything by itself: it only defines functions.
# Written for bash 3.2 and later, coreutils and python3 with pip; nothing else is assumed.

PATH="$PATH:/usr/sbin:/sbin"   # Debian gives neither to a plain user, and ldconfig lives there
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
third_party="$root/third_party"
self=${0##*/}

say()  { printf '%s: %s\n' "$self" "$*"; }
warn() { printf '%s: WARNING: %s\n' "$self" "$*" >&2; }
die()  { printf '%s: ERROR: %s\n' "$self" "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
have_pip() { have python3 && python3 -m pip --version >/dev/null 2>&1; }

os=$(uname -s | tr '[:upper:]' '[:lower:]')
arch=$(uname -m)
if [ "$os-$arch" = darwin-x86_64 ]; then die "PyPI has no libtorch and onnxruntime of our versions for Intel Macs: use Linux or an Apple Silicon Mac"; fi
key="$os-$arch"

# The wheels' platform tags, newest first, one a line.
platforms() {
  case $key in
    linux-x86_64|linux-aarch64) printf '%s\n' "manylinux_2_28_$arch" "manylinux_2_25_$arch" "manylinux2014_$arch";;
    darwin-arm64) printf '%s\n' macosx_14_0_arm64;;
    *) return 1;;
  esac
}

# check_libc: PyPI's manylinux_2_28 wheels need glibc 2.28; musl systems have none.
check_libc() {
  [ "$os" = linux ] || return 0
  local v; v=$(getconf GNU_LIBC_VERSION 2>/dev/null) || v=
  v=${v#glibc }
  case $v in
    [0-9]*.[0-9]*) [ "$(printf '%s\n2.28\n' "$v" | sort -V | head -n 1)" = 2.28 ] ||
        die "glibc $v is too old: the prebuilt libraries need glibc 2.28 or later (Debian 10, Ubuntu 18.10, RHEL 8 or newer)";;
    *) die "this system has no glibc (Alpine and other musl systems): the prebuilt libraries need glibc 2.28 or later; use a Debian 12 container";;
  esac
}

# need_space DIR MEGABYTES WHAT: refuse before the download rather than fail in the middle of it.
need_space() {
  local free; free=$(df -Pk "$1" | awk 'NR==2 {print int($4/1024)}')
  if [ "$free" -lt "$2" ]; then die "$3 needs $2 MB free in $1 while it is unpacked, but only $free MB are free there"; fi
}

# take_lock NAME: one process at a time fills a folder; the others wait, then find it full.
take_lock() {
  mkdir -p "$third_party" || die "cannot create $third_party: check the permissions of $root"
  have flock || return 0
  exec 9>"$third_party/.$1.lock" || die "cannot write in $third_party: check its owner and permissions"
  flock -n 9 || { say "another $1 is at work, waiting for it"; flock 9; }
  # Nobody else is at work, so scratch folders are what a killed run has left behind.
  rm -rf "$third_party/.$1".tmp.*
}

child=; scratch=
clean_up() {
  # The whole group: python3 may be a wrapper (pyenv) that started the real one.
  if [ -n "$child" ]; then kill -- "-$child" 2>/dev/null || true; wait "$child" 2>/dev/null || true; fi
  if [ -n "$scratch" ]; then rm -rf "$scratch"; fi
}

# new_scratch NAME: a folder on the same file system as the destination (so that the last rename is atomic),
# removed however the script ends; $scratch holds its path.
new_scratch() {
  trap clean_up EXIT
  trap 'say "interrupted; nothing was changed, run it again"; exit 130' INT TERM HUP
  scratch=$(mktemp -d "$third_party/.$1.tmp.XXXXXX")
  mkdir "$scratch/wheels" "$scratch/pip"
}

# show_progress PID MEGABYTES: what has arrived so far, until PID ends. One line that rewrites itself on a
# terminal, a line every ten seconds in a log.
show_progress() {
  local begin=$SECONDS got=0 spent=0
  while kill -0 "$1" 2>/dev/null; do
    sleep 0.5
    got=$(du -sk "$scratch" 2>/dev/null | awk '{print int($1/1000)}'); got=${got:-0}
    if [ "$got" -gt "$2" ]; then got=$2; fi     # pip moves the finished file: it may be counted twice for a moment
    if [ -t 1 ]; then printf '\r  %d of %d MB, %d s ' "$got" "$2" "$((SECONDS - begin))"
    elif [ "$((SECONDS - begin))" -ge "$((spent + 10))" ]; then
      spent=$((SECONDS - begin)); printf '  %d of %d MB, %d s\n' "$got" "$2" "$spent"
    fi
  done
  if [ -t 1 ]; then printf '\r  %d MB, %d s          \n' "$2" "$((SECONDS - begin))"; fi
}

# fetch_wheel NAME==VERSION SHA256 MEGABYTES: downloads into $scratch/wheels. pip itself refuses a file with
# another hash. The wheel of CPython 3.11 is asked for whatever python3 is here: only its C++ libraries are
# used, and so the hash is fixed. `pip download` also works where Debian forbids `pip install`.
fetch_wheel() {
  local flags=() p
  for p in $(platforms); do flags+=(--platform "$p"); done
  printf '%s --hash=sha256:%s\n' "$1" "$2" > "$scratch/wanted.txt"
  set -m   # a process group of its own, so that clean_up can end all of it
  TMPDIR="$scratch/pip" python3 -m pip download --quiet --progress-bar off --disable-pip-version-check --no-deps \
    --no-cache-dir --only-binary=:all: --require-hashes --implementation cp --python-version 311 \
    --abi cp311 --abi none "${flags[@]}" -r "$scratch/wanted.txt" -d "$scratch/wheels" </dev/null 9>&- &
  child=$!
  set +m
  show_progress "$child" "$3"
  local rc=0; wait "$child" || rc=$?
  child=
  [ "$rc" = 0 ] || die "could not download $1 from PyPI (pip said why, above). Nothing was changed.
  - no network, or a proxy: set HTTPS_PROXY (and PIP_CERT, where the proxy has a certificate of its own), or
    PIP_INDEX_URL to a mirror, and run it again;
  - 'DO NOT MATCH THE HASHES': what came is not the file that this project was tested with, so it was thrown away."
}

# put_in_place DEST: $scratch/out becomes DEST by a rename; what was there goes away with the scratch folder.
put_in_place() {
  if [ -e "$1" ] || [ -L "$1" ]; then mv "$1" "$scratch/old"; fi
  mv "$scratch/out" "$1"
}
