#!/usr/bin/env bash
# Runs the runtime as aarch64 under qemu, on cores with and without the dot product, and compares it with this machine.
#
# usage: tests/aarch64/run.sh [DIRECTORY]
#
# DIRECTORY (default: build/aarch64) keeps what was downloaded for the next run: a Debian or Ubuntu for arm64 as this machine
# has it, and the wheels of the base install, `cpu` and `compile`. PYTHON (default: python3) has this project with the extras
# `export` and `cpu`. MIRROR names an archive that has arm64 where this machine's own has not.
# Exit code 0: everything agrees; 1: something does not; 2: the run could not start, and what is missing is named.
set -euo pipefail

checkout=$(cd "$(dirname "$0")/../.." && pwd)
directory=${1:-$checkout/build/aarch64}
python=${PYTHON:-python3}

missing=()
for tool in qemu-aarch64-static debootstrap dpkg-deb apt-get; do
    command -v "$tool" >/dev/null || missing+=("$tool")
done
[ "$(id -u)" = 0 ] || command -v fakeroot >/dev/null || missing+=("fakeroot (or root, for debootstrap)")
"$python" -c 'import plume_export, onnxruntime, torch' 2>/dev/null || missing+=("a PYTHON with plume-export[export,cpu]")
if [ ${#missing[@]} -gt 0 ]; then
    printf 'missing: %s\n' "${missing[@]}" >&2
    echo "fix: apt-get install qemu-user-static debootstrap; pip install -e '.[export,cpu]'" >&2
    exit 2
fi

mkdir -p "$directory"
directory=$(cd "$directory" && pwd)
root=$directory/root
site=$directory/site

archive_of_this_machine() {
    apt-get indextargets --format '$(CODENAME) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
        awk -v codename="$1" '$1 == codename && $2 == "main" {print $3; exit}'
}

# Only unpacked: no package's script runs, so that no emulation is set up in the kernel.
make_root() {
    local codename mirror become_root=() package
    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    mirror=${MIRROR:-$(archive_of_this_machine "$codename")}
    [ -n "$mirror" ] || { echo "no archive of $codename in this machine's apt sources; fix: set MIRROR" >&2; exit 2; }
    [ "$(id -u)" = 0 ] || become_root=(fakeroot)
    rm -rf "$root.partial"
    "${become_root[@]}" debootstrap --arch=arm64 --foreign --variant=minbase --include=python3 \
        "$codename" "$root.partial" "$mirror" >"$directory/debootstrap.log" ||
        { tail -3 "$directory/debootstrap.log" >&2; echo "fix: set MIRROR to an archive that has arm64" >&2; exit 2; }
    for package in "$root.partial"/var/cache/apt/archives/*.deb; do
        dpkg-deb -x "$package" "$root.partial"
    done
    rm -rf "$root.partial/var/cache/apt/archives"
    mv "$root.partial" "$root"
}

# What the installed project requires for a device, without markers: they would be read for this machine's Python.
requirements() {
    "$python" -c '
from importlib.metadata import requires
for requirement in requires("plume-export"):
    name, _, marker = requirement.partition(";")
    if "extra" not in marker or any(f"\"{extra}\"" in marker.replace(chr(39), chr(34)) for extra in ("cpu", "compile")):
        print(name.strip())'
}

make_site() {
    local platforms=() wheel
    for platform in manylinux_2_28 manylinux_2_27 manylinux_2_26 manylinux_2_17 manylinux2014; do
        platforms+=(--platform "${platform}_aarch64")
    done
    rm -rf "$directory/wheels" "$site" "$site.partial"
    "$python" -m pip download -q --only-binary=:all: --implementation cp --python-version "$1" "${platforms[@]}" \
        -d "$directory/wheels" -r "$directory/requirements.new"
    for wheel in "$directory"/wheels/*.whl; do
        "$python" -m zipfile -e "$wheel" "$site.partial"
    done
    mv "$site.partial" "$site"
    mv "$directory/requirements.new" "$directory/requirements.txt"
}

[ -d "$root" ] || make_root
guest_python=$(basename "$(find "$root/usr/bin" -regex '.*/python3\.[0-9]+' | sort | tail -1)")
requirements >"$directory/requirements.new"
cmp -s "$directory/requirements.new" "$directory/requirements.txt" || make_site "${guest_python#python}"

# The project itself is always made anew: it is what is tested.
rm -rf "$directory/own"
"$python" -m pip wheel -q --no-deps -w "$directory/own" "$checkout"
"$python" -m zipfile -e "$directory"/own/*.whl "$directory/own"

cd "$checkout"
"$python" -m tests.aarch64.cases "$directory" --python "usr/bin/$guest_python"
