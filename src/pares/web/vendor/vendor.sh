#!/bin/sh
# Maintainer only: bundle the libraries of package-lock.json into the ES modules that are committed beside this file,
# with their licences and checksums. Needs node and npm. `vendor.sh --types` checks the page's JSDoc types instead.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/vendor"
cp -R "$here/package.json" "$here/package-lock.json" "$here/entry" "$work/vendor/"
cd "$work/vendor"
npm ci --silent --ignore-scripts --no-audit --no-fund

if [ "${1:-}" = --types ]; then
  cp "$here"/*.d.ts .
  cp -R "$here/../app" "$here/../jsconfig.json" "$work/"
  exec node_modules/.bin/tsc --project "$work/jsconfig.json"
fi

bundle() { # output, packages in it
  node_modules/.bin/esbuild "entry/$1.js" --bundle --minify --format=esm --target=es2022 --charset=utf8 \
    --legal-comments=none --log-level=warning --banner:js="/* $2; licences in LEGAL.txt */" --outfile="$here/$1.js"
}
version() { node -p "require('./node_modules/$1/package.json').version"; }
named() { for name in "$@"; do printf '%s %s, ' "$name" "$(version "$name")"; done | sed 's/, $//'; }

bundle preact "$(named preact @preact/signals @preact/signals-core htm)"
bundle marked "$(named marked)"
bundle highlight "$(named highlight.js)"

for name in preact @preact/signals @preact/signals-core htm marked highlight.js; do
  printf '%s %s\n\n' "$name" "$(version "$name")"
  cat "node_modules/$name/LICENSE"
  printf '\n%s\n\n' '--------------------------------------------------------------------------------'
done > "$here/LEGAL.txt"

cd "$here"
sha256sum LEGAL.txt highlight.js marked.js preact.js > SHA256SUMS
