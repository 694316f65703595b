#!/bin/sh
# Usage: versitygw.sh DIR
# Builds versitygw, an S3 server on a folder, once, and prints where it is.
set -eu
version=v1.8.0
bin=$1/versitygw-$version
mkdir -p "$bin"
exec 9>"$bin/lock"
flock 9
[ -x "$bin/versitygw" ] || GOBIN=$bin GOFLAGS= CGO_ENABLED=0 go install -trimpath -ldflags '-s -w' "github.com/versity/versitygw/cmd/versitygw@$version" >&2
echo "$bin/versitygw"
