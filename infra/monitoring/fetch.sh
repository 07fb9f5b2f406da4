#!/usr/bin/env bash
# Put prometheus, promtool and the node exporter of Debian into a folder, without installing them: the packages start
# services. `infra/monitoring/fetch.sh` prints the folder, for PATH.
set -euo pipefail
folder=${1:-$(cd "$(dirname "$0")/../.." && pwd)/.tools}
mkdir -p "$folder" && cd "$folder"
for package in prometheus prometheus-node-exporter; do
    if [ ! -x "usr/bin/$package" ]; then
        chmod a+rwx . && apt-get download -qq "$package" >&2 && dpkg -x "$package"_*.deb . && rm "$package"_*.deb
    fi
done
echo "$folder/usr/bin"
