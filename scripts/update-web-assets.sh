#!/bin/sh
# Bring the scripts of others that the dashboard's pages load to the versions named here, with their licences and a list of
# what each is (versions.json, which tests check). They lie in the repository: only who runs this needs npm and the network.
# After a change of versions here: run it, look at the pages, run `pytest tests/web`, and commit what has changed.
set -eu
HTMX=${HTMX:-4.0.1}
UPLOT=${UPLOT:-1.6.32}

target=$(cd "$(dirname "$0")/.." && pwd)/src/gristmill/web/assets/vendor
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm pack --silent "htmx.org@$HTMX" "uplot@$UPLOT" > /dev/null
mkdir htmx uplot
tar -xzf htmx.org-*.tgz -C htmx --strip-components 1
tar -xzf uplot-*.tgz -C uplot --strip-components 1
mkdir -p "$target"
# Where their sources are, only a browser's developer tools would ask for.
plain() { sed '/^\/\/# sourceMappingURL=/d' "$1" > "$target/$2"; }
plain htmx/dist/htmx.min.js htmx.min.js
plain htmx/dist/ext/hx-sse.min.js hx-sse.min.js
plain uplot/dist/uPlot.iife.min.js uplot.min.js
plain uplot/dist/uPlot.min.css uplot.min.css
cp htmx/LICENSE "$target/htmx.LICENSE.txt"
cp uplot/LICENSE "$target/uplot.LICENSE.txt"
hash() { sha256sum "$target/$1" | cut -d ' ' -f 1; }
licence() { sed -n 's/^ *"license": "\(.*\)",\{0,1\}$/\1/p' "$1/package.json"; }
cat > "$target/versions.json" << JSON
[
  {"file": "htmx.min.js", "package": "htmx.org", "version": "$HTMX", "licence": "$(licence htmx)", "sha256": "$(hash htmx.min.js)"},
  {"file": "hx-sse.min.js", "package": "htmx.org", "version": "$HTMX", "licence": "$(licence htmx)", "sha256": "$(hash hx-sse.min.js)"},
  {"file": "uplot.min.js", "package": "uplot", "version": "$UPLOT", "licence": "$(licence uplot)", "sha256": "$(hash uplot.min.js)"},
  {"file": "uplot.min.css", "package": "uplot", "version": "$UPLOT", "licence": "$(licence uplot)", "sha256": "$(hash uplot.min.css)"}
]
JSON
