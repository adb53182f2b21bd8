#!/bin/sh
# Install what some tests need besides Python packages, from Debian's packages: a browser for the pages, and shells for the
# completion. Without them those tests are skipped, each with a line that says so. `.ci/run` runs this; it wants root.
set -eu
packages=""
for tool in chromium zsh fish; do
    command -v "$tool" > /dev/null || packages="$packages $tool"
done
[ -n "$packages" ] || exit 0
command -v apt-get > /dev/null || { echo "Not a Debian system: install$packages by hand." >&2; exit 1; }
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
# shellcheck disable=SC2086 - a list
apt-get -qq install --yes --no-install-recommends $packages > /dev/null
