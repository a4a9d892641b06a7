#!/usr/bin/env bash
# What a GPU makes of membench, in at most 8 minutes: the tests on the device, then
# throughput at Stable Diffusion 1.4's real architecture with random weights. Needs no
# network and no published weights.
#
#   bash benchmarks/gpu.sh [FOLDER]              results in FOLDER (default gpu-results)
#   DEVICE=cpu bash benchmarks/gpu.sh [FOLDER]   a rehearsal: tiny, measures nothing
#
# FOLDER/gpu.json holds what docs/scale.md quotes, FOLDER/tests.txt what pytest said.
set -u
cd "$(dirname "$0")/.."
device=${DEVICE:-cuda}
python=${PYTHON:-python}
out=${1:-gpu-results}
mkdir -p "$out"
extra=()
tests_s=180 measured_s=290
if [ "$device" = cpu ]; then # in its own time
  extra=(--tiny --no-compile)
  tests_s=0 measured_s=0
fi

MEMBENCH_TEST_DEVICE=$device timeout $tests_s "$python" -m pytest -q -n 0 tests/test_device.py \
  2>&1 | tee "$out/tests.txt"
tests=${PIPESTATUS[0]}
timeout $measured_s "$python" benchmarks/gpu.py --device "$device" --output "$out/gpu.json" \
  "${extra[@]}" 2>&1 | tee "$out/gpu.txt"
measured=${PIPESTATUS[0]}
echo "tests: exit $tests; measurements: exit $measured; files: $out"
[ "$tests" = 0 ] && [ "$measured" = 0 ]
