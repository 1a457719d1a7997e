#!/usr/bin/env bash
# Runs all tests: installs what is missing, builds the programs, then every unit test and the end-to-end
# tests (tests/it), which start a real Apache Kafka by themselves. With CI=true a missing Kafka is a failure.
set -euo pipefail
cd "$(dirname "$0")/.."

bash ops/setup.sh --tests
# The end-to-end tests run sluiced and sluice as they are built here.
cargo build --workspace --bins
cargo test --workspace --no-fail-fast
