#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Writes openapi.yaml (3.1) from the Cloud API's code and zz_generated.client.go from it. OAPI_CODEGEN names the generator (v2.8.2).
set -euo pipefail
cd "$(dirname "$0")"
generator=${OAPI_CODEGEN:-$(command -v oapi-codegen || true)}
if [[ -z $generator ]]; then
  echo "client: no oapi-codegen on PATH; install it: go install github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen@v2.8.2" >&2
  exit 1
fi
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
{ echo "# SPDX-License-Identifier: Apache-2.0"; go run ../cloud/api/openapi; } >"$dir/openapi.yaml"
go run ../cloud/api/openapi --for-generator >"$dir/generator.yaml"
sed "s|^output: .*|output: $dir/client.go|" oapi-codegen.yaml >"$dir/config.yaml"
"$generator" --config "$dir/config.yaml" "$dir/generator.yaml"
{ echo "// SPDX-License-Identifier: Apache-2.0"; echo; sed 's|(devel)|v2.8.2|' "$dir/client.go"; } >"$dir/out.go"
gofmt "$dir/out.go" >zz_generated.client.go
cp "$dir/openapi.yaml" openapi.yaml
