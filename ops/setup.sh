#!/usr/bin/env bash
# Installs what sluice needs on a Debian machine that has a Rust toolchain, and says what it does.
#   ops/setup.sh           what the build needs
#   ops/setup.sh --tests   also Java, Maven and the jars of Apache Kafka, which the tests start
# It can be run again at any time; what is there already is left alone.
set -euo pipefail
cd "$(dirname "$0")/.."

tests=no
for argument in "$@"; do
  case "$argument" in
    --tests) tests=yes ;;
    *) echo "setup: unknown argument $argument (known: --tests)" >&2; exit 2 ;;
  esac
done

as_root=()
if [ "$(id -u)" != 0 ]; then
  as_root=(sudo)
fi

# Installs the packages whose absence the caller has found.
install() {
  if ! command -v apt-get >/dev/null; then
    echo "setup: needed and missing: $*. This script installs with apt-get, which is not here:" \
      "please install them with your system's package manager and run it again." >&2
    return 1
  fi
  if [ "${#as_root[@]}" -gt 0 ] && ! command -v sudo >/dev/null; then
    echo "setup: needed and missing: $*. Neither root nor sudo here: please ask for them to be installed." >&2
    return 1
  fi
  echo "setup: installing $*"
  "${as_root[@]}" apt-get update -qq
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

missing=()
command -v gcc >/dev/null || missing+=(gcc)
command -v g++ >/dev/null || missing+=(g++)
command -v make >/dev/null || missing+=(make)
command -v pkg-config >/dev/null || missing+=(pkg-config)
# TLS and SASL towards Kafka use the system's OpenSSL, so that its security updates reach us.
{ command -v pkg-config >/dev/null && pkg-config --exists openssl; } || missing+=(libssl-dev)
if [ "${#missing[@]}" -gt 0 ]; then
  install "${missing[@]}"
fi
if ! command -v cargo >/dev/null; then
  echo "setup: no cargo on the path: please install a Rust toolchain (rustup) first." >&2
  exit 1
fi
[ "$tests" = yes ] || exit 0

# From here on a failure is told and not fatal: without Java, Maven or jars the Kafka tests are skipped.
java_version() {
  local version
  version="$(java -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p' | head -n 1)"
  echo "${version:-0}"
}
skip() {
  echo "setup: $1; the tests that need a real Kafka will be skipped." >&2
  exit 0
}
libs="${SLUICE_KAFKA_HOME:-$PWD/.kafka}/libs"

if ! command -v java >/dev/null || [ "$(java_version)" -lt 17 ]; then
  package=default-jre-headless
  if command -v apt-cache >/dev/null && apt-cache show openjdk-17-jre-headless >/dev/null 2>&1; then
    package=openjdk-17-jre-headless
  fi
  install "$package" || skip "Java 17 cannot be had"
fi
command -v openssl >/dev/null || install openssl || skip "openssl, which makes the tests' certificates, cannot be had"
if [ ! -f "$libs/kafka_2.13-4.2.0.jar" ]; then
  command -v mvn >/dev/null || install maven || skip "Maven cannot be had"
  echo "setup: fetching the jars of Apache Kafka into $libs"
  rm -rf "$libs.part"
  mvn -q -B -Dstyle.color=never -f tests/kafka/pom.xml dependency:copy-dependencies \
    -DincludeScope=runtime -DoutputDirectory="$libs.part" || skip "the jars of Apache Kafka cannot be had"
  rm -rf "$libs"
  mv "$libs.part" "$libs"
fi
