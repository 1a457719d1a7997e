#!/usr/bin/env bash
# Sets up what the build needs, builds, and runs the demonstration. Arguments go to `sluice demo` (try --forever, --help).
set -euo pipefail
cd "$(dirname "$0")/.."
bash ops/setup.sh
# Silent where nothing has to be built; the first time it takes some minutes, and cargo says how far it is.
cargo build --release --package sluice-ops --bin sluice
exec cargo run --release --quiet --package sluice-ops --bin sluice -- demo "$@"
