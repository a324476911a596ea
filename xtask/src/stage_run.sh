#!/usr/bin/env bash
# Runs the staged tests on the GPU: all of them, or one program with arguments.
#   ./run                    every test program
#   ./run suite [args]       one program; `./run suite --list` lists its tests
#   ./run bench --out DIR    the benchmark
#   ./run sanitize           a subset of the suite under compute-sanitizer, which has to be in PATH
# DSA_BACKEND=emulator runs on the CPU. DSA_WRAPPER is put in front of a program, for instance
# DSA_WRAPPER="compute-sanitizer --tool racecheck".
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export DSA_DATA=${DSA_DATA:-$here/data} DSA_BACKEND=${DSA_BACKEND:-gpu}
# Runs tests of the suite under a tool. compute-sanitizer reports findings, but ends with 0 unless told otherwise.
sanitize() {
    local tool=$1
    shift
    echo "== $tool"
    compute-sanitizer --tool "$tool" --error-exitcode {finding} "$here/suite" --test-threads 1 "$@"
}
if [ "${1:-}" = sanitize ]; then
    if ! command -v compute-sanitizer >/dev/null; then
        echo "no compute-sanitizer in PATH: it is part of the CUDA toolkit, in bin" >&2
        exit 1
    fi
{sanitize}
    exit
fi
if [ $# -gt 0 ]; then
    program=$here/$1
    shift
    # The wrapper is meant to be split into words.
    # shellcheck disable=SC2086
    exec ${DSA_WRAPPER:-} "$program" "$@"
fi
failed=()
for name in {tests}; do
    echo "== $name"
    # shellcheck disable=SC2086
    ${DSA_WRAPPER:-} "$here/$name" || failed+=("$name")
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "failed: ${failed[*]}" >&2
    exit 1
fi
