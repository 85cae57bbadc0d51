// The OCI conformance suite for version 1.1 of the distribution specification, pinned for the tests: the commit
// of 2026-04-13 on the specification's main branch, the last before the suite was redesigned.
// chaos/setup.sh builds its test program from here. `go install …@VERSION` would make no test program, and
// resolves nothing where the module proxy does not serve this version's .info; the hash in this folder's
// go.sum is what is checked.
module tercet.invalid/chaos/conformance

go 1.25.0

require github.com/opencontainers/distribution-spec/conformance v0.0.0-20260413194130-13a5d3ee2857

require (
	github.com/asaskevich/govalidator v0.0.0-20230301143203-a9d515a09cc2 // indirect
	github.com/bloodorangeio/reggie v0.6.1 // indirect
	github.com/go-logr/logr v1.2.4 // indirect
	github.com/go-resty/resty/v2 v2.7.0 // indirect
	github.com/go-task/slim-sprig v0.0.0-20230315185526-52ccab3ef572 // indirect
	github.com/google/pprof v0.0.0-20230602150820-91b7bce49751 // indirect
	github.com/google/uuid v1.3.0 // indirect
	github.com/mitchellh/mapstructure v1.5.0 // indirect
	github.com/onsi/ginkgo/v2 v2.11.0 // indirect
	github.com/opencontainers/go-digest v1.0.0 // indirect
	golang.org/x/net v0.33.0 // indirect
	golang.org/x/sys v0.28.0 // indirect
	golang.org/x/tools v0.21.1-0.20240508182429-e35e4ccd0d2d // indirect
)
