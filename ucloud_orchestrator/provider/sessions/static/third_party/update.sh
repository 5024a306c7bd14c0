#!/bin/sh
# Fetches the browser libraries from the npm registry and lays their distribution files down here; see README.md.
# Needs npm. Run it after a change of a version below, and commit what it changes.
set -eu
XTERM=6.0.0 FIT=0.11.0 NOVNC=1.7.0 ESBUILD=0.28.2
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
npm init --yes >/dev/null
npm install --no-audit --no-fund --no-save \
  "@xterm/xterm@$XTERM" "@xterm/addon-fit@$FIT" "@novnc/novnc@$NOVNC" "esbuild@$ESBUILD"
lay() { mkdir -p "$(dirname "$here/$2")" && sed '/^\/\/# sourceMappingURL=/d' "node_modules/$1" > "$here/$2"; }
lay @xterm/xterm/lib/xterm.mjs xterm/xterm.mjs
lay @xterm/xterm/css/xterm.css xterm/xterm.css
lay @xterm/xterm/LICENSE xterm/LICENSE
lay @xterm/addon-fit/lib/addon-fit.mjs addon-fit/addon-fit.mjs
lay @xterm/addon-fit/LICENSE addon-fit/LICENSE
node_modules/.bin/esbuild node_modules/@novnc/novnc/core/rfb.js --bundle --format=esm --legal-comments=inline \
  --outfile="$here/novnc/rfb.mjs"
lay @novnc/novnc/LICENSE.txt novnc/LICENSE.txt
lay @novnc/novnc/AUTHORS novnc/AUTHORS
lay @novnc/novnc/docs/LICENSE.MPL-2.0 novnc/LICENSE.MPL-2.0
lay @novnc/novnc/vendor/pako/LICENSE novnc/LICENSE.pako
