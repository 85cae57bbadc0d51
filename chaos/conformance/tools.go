//go:build tools

// Package conformance keeps the suite's module in go.mod; nothing here is built.
package conformance

import _ "github.com/opencontainers/distribution-spec/conformance"
