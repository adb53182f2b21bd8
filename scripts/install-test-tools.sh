#!/bin/sh
# Install what some tests need besides Python packages, from Debian's packages: a browser for the pages, shells for the
# completion, systemd's and Prometheus' own checks of the unit and the alert rules, a PostgreSQL server. Without them those
# tests are skipped, each with a line that says so. `.ci/run` runs this; it wants root.
set -eu
packages=""
for tool in chromium zsh fish; do
    command -v "$tool" > /dev/null || packages="$packages $tool"
done
command -v systemd-analyze > /dev/null || packages="$packages systemd"
# Its commands are beside one another, in no folder of the PATH. The tests start servers of their own.
postgresql=""
ls /usr/lib/postgresql/*/bin/postgres > /dev/null 2>&1 || command -v postgres > /dev/null || postgresql=" postgresql"
[ -x /usr/sbin/pgbouncer ] || command -v pgbouncer > /dev/null || packages="$packages pgbouncer"
promtool=""
command -v promtool > /dev/null || promtool=" promtool"
[ -n "$packages$postgresql$promtool" ] || exit 0
command -v apt-get > /dev/null || { echo "Not a Debian system: install$packages$postgresql$promtool by hand." >&2; exit 1; }
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
if [ -n "$packages" ]; then
    # shellcheck disable=SC2086 - a list
    apt-get -qq install --yes --no-install-recommends $packages > /dev/null
fi
if [ -n "$postgresql" ]; then
    # Without the server that the package would start.
    apt-get -qq install --yes --no-install-recommends postgresql-common > /dev/null
    sed -i 's/^#* *create_main_cluster *=.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
    apt-get -qq install --yes --no-install-recommends postgresql > /dev/null
fi
if [ -n "$promtool" ]; then
    # It is a part of Debian's package of the whole server, which would start one: only the tool is taken.
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    (cd "$folder" && apt-get -qq -o APT::Sandbox::User=root download prometheus && dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool)
    install -m 755 "$folder/usr/bin/promtool" /usr/local/bin/promtool
fi
